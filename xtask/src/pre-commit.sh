#!/bin/sh

# >>> cargo xtask install-hooks >>>
# Refreshes the fixtures that a commit would leave outdated; SKIP_FIXTURES=1 skips it.
(
  [ "${SKIP_FIXTURES:-0}" = 0 ] || exit 0
  crate=xtask settings=xtask/db.toml program=xtask/xtask
  [ -f "$settings" ] || exit 0
  command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-${HOME:-}/.cargo}/bin
  command -v cargo >/dev/null || {
    echo 'pre-commit: no cargo on PATH or in ~/.cargo/bin to refresh the fixtures: https://rustup.rs has it' >&2
    echo 'pre-commit: to commit without: SKIP_FIXTURES=1 git commit' >&2
    exit 1
  }
  built=${CARGO_TARGET_DIR:-target}/$program
  [ -f "$built" ] || built=$crate/target/$program
  newer=$(find "$crate/src" "$crate/Cargo.toml" "$crate/Cargo.lock" Cargo.lock ops-remote \
    -type f -newer "$built" 2>/dev/null)
  [ -f "$built" ] && [ -z "$newer" ] ||
    echo 'pre-commit: building xtask first, this may take a minute' >&2
  # The alias is quiet, also where Cargo waits.
  perl -e 'open F, "<", shift or exit; exit !flock F, 5' "${built%/*}/.cargo-lock" 2>/dev/null ||
    [ $? != 1 ] || echo 'pre-commit: waiting for another cargo: it has the lock on the build directory' >&2
  cargo xtask refresh-fixtures --staged || exit
  # Where Cargo found nothing to build, this is not said again.
  touch -c "$built" 2>/dev/null || :
) </dev/null || exit $?
# <<< cargo xtask install-hooks <<<
