# Completion of trading-core for bash. The program itself knows what may follow: nothing here needs to be made anew when
# it changes.

_trading_core() {
    # Positions are counted in bytes.
    local LC_ALL=C program word
    program=$(type -P trading-core) || program=@PROGRAM@
    COMPREPLY=()
    while IFS= read -r word; do
        case $word in
            :files | :folders)
                compopt -o filenames 2>/dev/null
                local kind=-f
                [ "$word" = :folders ] && kind=-d
                while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen "$kind" -- "$2")
                return
                ;;
            # Something has to follow, without a space between.
            *[:=/]) compopt -o nospace 2>/dev/null ;;
        esac
        COMPREPLY+=("$word")
    done < <("$program" __complete bash -- "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null)
}

complete -F _trading_core trading-core
