#!/bin/sh
# Runs the lifecycle scripts of a notebook instance as root, then its server as the user it is to have. The engine
# reads the files in $progress: <hook>.done holds the exit code of a script that has ended, <hook>.log its output.
scripts=/opt/isolarium/scripts
progress=/opt/isolarium/lifecycle
user=$1
shift
for hook in on-create on-start; do
    [ -f "$scripts/$hook" ] || continue
    "$scripts/$hook" >"$progress/$hook.log" 2>&1 </dev/null
    code=$?
    echo "$code" >"$progress/$hook.done"
    [ "$code" -eq 0 ] || exit "$code"
done
[ "$user" = 0:0 ] && exec "$@"
# Every Jupyter image has Python; not every one has setpriv. -I: nothing but the image's own Python runs as root.
exec python3 -I -c '
import os, pwd, sys
user, _, group = sys.argv[1].partition(":")
uid = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
if not group:
    group = str(pwd.getpwuid(uid).pw_gid)
if not group.isdigit():
    import grp
    group = str(grp.getgrnam(group).gr_gid)
os.setgroups([])
os.setgid(int(group))
os.setuid(uid)
os.execvp(sys.argv[2], sys.argv[2:])
' "$user" "$@"
