# Made by ezpz, for csh and tcsh. `source THIS FILE` activates the environment; `deactivate` undoes it.
# csh has no functions: the file sources itself for the step that is named, and that is where each ends.

if ( ! $?_ezpz_conda_step ) set _ezpz_conda_step = activate

if ( "$_ezpz_conda_step" == scripts ) then  # of _ezpz_conda_from, for _ezpz_conda_when
    setenv _EZPZ_CONDA_FROM "$_ezpz_conda_from/etc/conda/$_ezpz_conda_when.d"
    setenv _EZPZ_CONDA_LIST 'cd "$_EZPZ_CONDA_FROM" 2>/dev/null && ls -1'
    set _ezpz_conda_files = ( "`printenv _EZPZ_CONDA_LIST | sh`" )  # tcsh globs nothing below a name that is not ASCII
    set _ezpz_conda_at = 1
    set _ezpz_conda_by = 1
    if ( "$_ezpz_conda_when" == deactivate ) then
        set _ezpz_conda_at = $#_ezpz_conda_files
        set _ezpz_conda_by = -1
    endif
    while ( $_ezpz_conda_at >= 1 && $_ezpz_conda_at <= $#_ezpz_conda_files )
        set _ezpz_conda_file = "$_EZPZ_CONDA_FROM/$_ezpz_conda_files[$_ezpz_conda_at]"
        if ( "$_ezpz_conda_file" =~ *.csh ) source "$_ezpz_conda_file"
        @ _ezpz_conda_at += $_ezpz_conda_by
    end
    unset _ezpz_conda_files _ezpz_conda_at _ezpz_conda_by _ezpz_conda_file _ezpz_conda_from _ezpz_conda_when
    unsetenv _EZPZ_CONDA_FROM
    unsetenv _EZPZ_CONDA_LIST
endif

if ( "$_ezpz_conda_step" == drop ) then  # _ezpz_conda_bin out of PATH; _ezpz_conda_found says whether it was there
    set _ezpz_conda_path = ( )
    set _ezpz_conda_found = 0
    foreach _ezpz_conda_each ( $path:q )
        if ( "x$_ezpz_conda_each" == "x$_ezpz_conda_bin" && ! $_ezpz_conda_found ) then
            set _ezpz_conda_found = 1
        else
            set _ezpz_conda_path = ( $_ezpz_conda_path:q "$_ezpz_conda_each" )
        endif
    end
    set path = ( $_ezpz_conda_path:q )
    unset _ezpz_conda_path _ezpz_conda_each _ezpz_conda_bin
endif

if ( "$_ezpz_conda_step" == undo ) then
    set _ezpz_conda_step = scripts
    set _ezpz_conda_from = "$_ezpz_conda_prefix"
    set _ezpz_conda_when = deactivate
    source "$_ezpz_conda_script"
    set _ezpz_conda_step = drop
    set _ezpz_conda_bin = "$_ezpz_conda_prefix/bin"
    source "$_ezpz_conda_script"
    if ( "$_ezpz_conda_old_bin" != "" ) set path = ( "$_ezpz_conda_old_bin" $path:q )
    if ( "$_ezpz_conda_old" != "" ) unsetenv CONDA_PREFIX_$_ezpz_conda_level
    if ( $?_ezpz_conda_old_shown ) then
        set prompt = "$_ezpz_conda_old_shown:q"
    endif
    unsetenv CONDA_PREFIX
    unsetenv CONDA_DEFAULT_ENV
    unsetenv CONDA_SHLVL
    unsetenv CONDA_PROMPT_MODIFIER
    if ( "$_ezpz_conda_old" != "" ) setenv CONDA_PREFIX "$_ezpz_conda_old"
    if ( "$_ezpz_conda_old_name" != "" ) setenv CONDA_DEFAULT_ENV "$_ezpz_conda_old_name"
    if ( "$_ezpz_conda_old_level" != "" ) setenv CONDA_SHLVL "$_ezpz_conda_old_level"
    if ( "$_ezpz_conda_old_prompt" != "" ) setenv CONDA_PROMPT_MODIFIER "$_ezpz_conda_old_prompt"
    if ( "$_ezpz_conda_old" != "" ) then
        set _ezpz_conda_step = scripts
        set _ezpz_conda_from = "$_ezpz_conda_old"
        set _ezpz_conda_when = activate
        source "$_ezpz_conda_script"
    endif
    unalias deactivate
    rehash
    set _ezpz_conda_step = undone
    unset _ezpz_conda_prefix _ezpz_conda_script _ezpz_conda_level _ezpz_conda_found _ezpz_conda_old _ezpz_conda_old_bin
    unset _ezpz_conda_old_name _ezpz_conda_old_level _ezpz_conda_old_prompt _ezpz_conda_old_shown
endif

if ( "$_ezpz_conda_step" == activate ) then
    if ( $?_ezpz_conda_script ) then
        set _ezpz_conda_step = undo
        source "$_ezpz_conda_script"
    endif
    set _ezpz_conda_prefix = @PREFIX@
    set _ezpz_conda_script = "$_ezpz_conda_prefix/bin/activate.csh"
    set _ezpz_conda_old = ""
    set _ezpz_conda_old_bin = ""
    set _ezpz_conda_old_name = ""
    set _ezpz_conda_old_level = ""
    set _ezpz_conda_old_prompt = ""
    if ( $?CONDA_PREFIX ) then
        set _ezpz_conda_old = "$CONDA_PREFIX"
    endif
    if ( $?CONDA_DEFAULT_ENV ) then
        set _ezpz_conda_old_name = "$CONDA_DEFAULT_ENV"
    endif
    if ( $?CONDA_SHLVL ) then
        set _ezpz_conda_old_level = "$CONDA_SHLVL"
    endif
    if ( $?CONDA_PROMPT_MODIFIER ) then
        set _ezpz_conda_old_prompt = "$CONDA_PROMPT_MODIFIER"
    endif
    set _ezpz_conda_level = "$_ezpz_conda_old_level"
    if ( "$_ezpz_conda_level" !~ [1-9]* || "$_ezpz_conda_level" =~ *[^0-9]* ) set _ezpz_conda_level = 0
    if ( "$_ezpz_conda_old" != "" ) then
        set _ezpz_conda_step = scripts
        set _ezpz_conda_from = "$_ezpz_conda_old"
        set _ezpz_conda_when = deactivate
        source "$_ezpz_conda_script"
        set _ezpz_conda_step = drop
        set _ezpz_conda_bin = "$_ezpz_conda_old/bin"
        source "$_ezpz_conda_script"
        if ( $_ezpz_conda_found ) set _ezpz_conda_old_bin = "$_ezpz_conda_old/bin"
        setenv CONDA_PREFIX_$_ezpz_conda_level "$_ezpz_conda_old"
    endif
    set path = ( "$_ezpz_conda_prefix/bin" $path:q )
    setenv CONDA_PREFIX "$_ezpz_conda_prefix"
    setenv CONDA_DEFAULT_ENV @BASE@
    @ _ezpz_conda_found = $_ezpz_conda_level + 1
    setenv CONDA_SHLVL $_ezpz_conda_found
    setenv CONDA_PROMPT_MODIFIER '(@NAME@) '
    if ( $?prompt ) then
        set _ezpz_conda_old_shown = "$prompt:q"
        set prompt = '(@NAME@) '"$prompt:q"
    endif
    alias deactivate 'set _ezpz_conda_step = undo; source "$_ezpz_conda_script"'
    set _ezpz_conda_step = scripts
    set _ezpz_conda_from = "$_ezpz_conda_prefix"
    set _ezpz_conda_when = activate
    source "$_ezpz_conda_script"
    rehash
    set _ezpz_conda_step = done
endif

if ( "$_ezpz_conda_step" == "done" || "$_ezpz_conda_step" == undone ) unset _ezpz_conda_step
