# shellcheck shell=sh
# The objects of a directory, for a client of a shared store. Objects are written beside their name
# first, and have it only when they are whole.
LC_ALL=C
export LC_ALL
IFS= read -r root && IFS= read -r what && IFS= read -r name && IFS= read -r size || exit 43
case $root in
[~]/*) root=$HOME/${root#[~]/} ;;
esac

# Keeps what arrives in a file of its own; nothing if it is cut.
receive() {
  new=$name.new-$$
  mkdir -p -- "$(dirname -- "$name")" || exit 43
  if cat >"$new" && [ "$(wc -c <"$new")" -eq "$size" ]; then
    sync -- "$new" 2>/dev/null
    return 0
  fi
  rm -f -- "$new"
  exit 43
}

if [ "$what" = make ]; then
  mkdir -p -- "$root" && cd -- "$root" && [ -w . ]
  exit
fi
[ -d "$root" ] || exit 44
cd -- "$root" || exit 43
# Those who can read the directory, or write to it, can do so with all objects.
mode=$(stat -c %a . 2>/dev/null || stat -f %Lp . 2>/dev/null)
case $mode in
"" | *[!0-7]*) ;;
*) umask "$(printf %04o $((0777 & ~0$mode)))" ;;
esac
case $what in
open) [ -r . ] ;;
get)
  [ -f "$name" ] || exit 44
  if [ "$(wc -c <"$name")" -gt "$size" ]; then
    wc -c <"$name"
    exit 45
  fi
  exec cat -- "$name"
  ;;
put) receive && mv -f -- "$new" "$name" ;;
create)
  receive
  if ln -- "$new" "$name" 2>/dev/null; then
    rm -f -- "$new"
    exit 0
  fi
  rm -f -- "$new"
  [ ! -e "$name" ] || exit 47
  echo "no link can be made here" >&2
  exit 43
  ;;
list)
  [ -d "$name" ] || exit 0
  if stat -c %s . >/dev/null 2>&1; then
    find "./$name" -type f -exec stat -c "%s %Y %n" {} +
  else
    find "./$name" -type f -exec stat -f "%z %m %N" {} +
  fi
  ;;
delete) rm -f -- "$name" ;;
*) exit 43 ;;
esac
