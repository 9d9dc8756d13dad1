# Sourced at the top of a script. For `--help` or `-h` among the arguments before `--`, prints the comment at the
# top of that script and ends it, before anything is installed or built.
for argument in "$@"; do
  case $argument in
  --) break ;;
  --help | -h)
    sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "scripts/${BASH_SOURCE[1]##*/}"
    exit
    ;;
  esac
done
