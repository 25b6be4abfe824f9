# Completion of trading-core for fish. The program itself knows what may follow: nothing here needs to be made anew when
# it changes.

function __trading_core_complete
    set -l program (command -s trading-core; or echo @PROGRAM@)
    set -l token (commandline --current-token --cut-at-cursor)
    set -l before (commandline --current-process --tokenize --cut-at-cursor)
    set -l found ($program __complete fish -- $before "$token" 2>/dev/null)
    switch "$found[1]"
        case ':files' ':folders'
            # A value that is joined to its option keeps the option before it.
            set -l option (string match --regex -- '^--[^=]*=' "$token")
            set -l path (string replace --regex -- '^--[^=]*=' '' "$token")
            if test "$found[1]" = ':files'
                __fish_complete_path "$path" | string replace --regex -- '^' "$option"
            else
                __fish_complete_directories "$path" | string replace --regex -- '^' "$option"
            end
        case '*'
            string join \n -- $found
    end
end

complete --command trading-core --no-files --keep-order --arguments '(__trading_core_complete)'
