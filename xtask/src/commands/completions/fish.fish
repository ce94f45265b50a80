# Asks the program that the repository of this directory has built, and nothing where
# none is: PACKAGE CRATE PROGRAM SHORT ELSEWHERE, then what was typed.
function __cargo_xtask_answer
    set -l package $argv[1]
    set -l crate $argv[2]
    set -l dir $PWD
    while not test -f $dir/$crate/Cargo.toml
        or not string match -q '*xtask-db*' <$dir/$crate/Cargo.toml
        test -n "$dir"; or return 1
        set dir (string replace -r '/[^/]*$' '' -- $dir)
    end
    for target in "$CARGO_TARGET_DIR" $dir/$crate/target $dir/target $argv[5]
        for file in $target/$argv[3] $target/$argv[4]
            # Only what this user has built is run.
            if test -n "$target" -a -f $file -a -x $file -a -O $file
                CARGO_MANIFEST_DIR=$dir/$crate CARGO_PKG_NAME=$package \
                    $file __complete $argv[6..] </dev/null 2>/dev/null
                return
            end
        end
    end
end

# The alias on the command line before the cursor.
function __cargo_xtask_alias
    for word in (commandline -opc)[2..]
        string match -q -r '^[-+]' -- $word; and continue
        string match -q -r '^[A-Za-z0-9_-]+$' -- $word
        and functions -q __cargo_xtask_for_$word
        and echo $word
        return
    end
    return 1
end

function __cargo_xtask
    set -l alias (__cargo_xtask_alias); or return
    __cargo_xtask_for_$alias words (commandline -opc) (commandline -ct | string unescape)
end

complete -c cargo -n __cargo_xtask_alias -f -k -a '(__cargo_xtask)'
