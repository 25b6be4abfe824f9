#compdef trading-core
# Completion of trading-core for zsh. The program itself knows what may follow: nothing here needs to be made anew when
# it changes.

_trading-core() {
    local program line value help
    local -a closed open
    program=$(whence -p trading-core) || program=@PROGRAM@
    for line in "${(@f)$("$program" __complete zsh -- "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}"; do
        case $line in
            :files | :folders)
                # A value that is joined to its option keeps the option before it.
                compset -P '--[^=]##='
                if [[ $line == :files ]]; then _files; else _files -/; fi
                return
                ;;
            '') continue ;;
        esac
        value=${${line%%$'\t'*}//:/\\:}
        help=
        [[ $line == *$'\t'* ]] && help=:${line#*$'\t'}
        # Something has to follow those, without a space between.
        if [[ ${line%%$'\t'*} == *[:=/] ]]; then open+=("$value$help"); else closed+=("$value$help"); fi
    done
    # Symbols are found in either case.
    local -a match_case=(-M 'm:{a-zA-Z}={A-Za-z}')
    _describe -V values closed $match_case -- open $match_case -S ''
}

if [[ $funcstack[1] == _trading-core ]]; then
    _trading-core "$@"
else
    compdef _trading-core trading-core
fi
