#!/usr/bin/env bash
# Runs in a root without network that has the packages in /packages: test-packages.sh starts it.
set -eu
roles=(agent storage api)
programs=(turku-agent turku-agent-ping turku-update-config turku-storage turku-storage-ping turku-storage-update-config
          turku-api turku_auth_create turku_health turku_clean_logs)
fail() { echo "FAILED: $*" >&2; exit 1; }
expect() { [ "$1" = "$2" ] || fail "$3: $1, expected $2"; }
owner_and_mode() { stat --format='%U:%G %a' "$1"; }

# The manual pages are left out of small roots.
rm -f /etc/dpkg/dpkg.cfg.d/*
apt-get install -qq -y --no-install-recommends /packages/*.deb >/tmp/install.log 2>&1 || { cat /tmp/install.log; fail install; }
cat /tmp/install.log | grep -i turku || true
! grep -i 'warn\|error\|traceback' /tmp/install.log || fail "the installation complains"
for program in "${programs[@]}"; do
  "$program" --help >/tmp/help 2>&1 || { cat /tmp/help; fail "$program --help"; }
  [[ $program = turku_* ]] || "$program" --version | grep -q '^turku ' || fail "$program --version"
  man -w "$program" >/dev/null || fail "no manual page of $program"
  man --warnings -l "$(man -w "$program")" >/dev/null 2>/tmp/warnings || true
  [ ! -s /tmp/warnings ] || { cat /tmp/warnings; fail "manual page of $program"; }
  bash --norc -ic ". /usr/share/bash-completion/bash_completion; _comp_load $program 2>/dev/null || __load_completion $program; \
    complete -p $program" >/dev/null 2>&1 || fail "completion of $program for bash"
  zsh -fc "autoload -Uz compinit && compinit -u -d /tmp/zcompdump && whence -v _$program" >/dev/null || fail "completion of $program for zsh"
  fish --no-config --no-execute "/usr/share/fish/vendor_completions.d/$program.fish" || fail "completion of $program for fish"
done
python3 -IS -c 'import sys; sys.path.insert(0, "/usr/lib/turku"); import psycopg; assert psycopg.pq.__impl__ == "c", psycopg.pq.__impl__' ||
  fail "psycopg does not use its C part"
# Nothing of the user's own is imported.
mkdir -p /tmp/mine/turku && echo 'raise SystemExit("mine")' | tee /tmp/mine/turku/__init__.py >/tmp/mine/argparse.py
(cd /tmp/mine && PYTHONPATH=/tmp/mine turku-agent --version >/dev/null) || fail "PYTHONPATH changes turku-agent"
# Modules are compiled, and each package has its own role only.
for role in "${roles[@]}"; do
  [ -n "$(find "/usr/lib/turku/turku/$role/__pycache__" -name 'cli.*.pyc')" ] || fail "$role is not compiled"
  id "turku-$role" >/dev/null || fail "no user turku-$role"
done
[ ! -e /usr/lib/turku/turku/demo ] || fail "the demo is installed"
expect "$(owner_and_mode /etc/turku-agent/sources.d)" "root:root 700" sources.d
expect "$(owner_and_mode /etc/turku-storage/config.d)" "root:root 700" config.d
expect "$(owner_and_mode /etc/turku-api)" "root:turku-api 750" /etc/turku-api
expect "$(owner_and_mode /var/lib/turku-agent)" "turku-agent:turku-agent 700" /var/lib/turku-agent
expect "$(owner_and_mode /var/lib/turku-api)" "turku-api:turku-api 700" /var/lib/turku-api
expect "$(owner_and_mode /var/lib/turku-storage)" "root:root 711" /var/lib/turku-storage
expect "$(owner_and_mode /var/lib/turku-storage-login)" "turku-storage:turku-storage 755" /var/lib/turku-storage-login
[ -z "$(find /etc/systemd/system -name 'turku*')" ] || fail "a unit is enabled before setup"
systemd-analyze verify --man=no /usr/lib/systemd/system/turku-* || fail "units"

# A coordinator that is set up, and the other hosts' files.
printf 'TURKU_ALLOWED_HOSTS=localhost\n' >/etc/turku-api/environment
chown root:turku-api /etc/turku-api/environment
chmod 640 /etc/turku-api/environment
turku-api migrate >/tmp/migrate.log 2>&1 || { cat /tmp/migrate.log; fail migrate; }
echo '{}' | tee /etc/turku-agent/config.d/mine.json >/etc/turku-storage/config.d/mine.json
mkdir -p /srv/volume/backup && echo data >/srv/volume/backup/file
touch /var/lib/turku-storage/catalog /var/lib/turku-agent/identity

# As the commands `setup` do.
systemctl enable turku-agent-ping.timer turku-storage-gc.timer turku-api.service >/dev/null 2>&1
enabled() { find /etc/systemd/system -name 'turku*' | wc -l; }
expect "$(enabled)" 3 "enabled units"

# An upgrade says what happened, migrates the database, and keeps configuration and state.
mkdir /tmp/newer
for package in /packages/*.deb; do
  dpkg-deb -R "$package" /tmp/changed
  sed -i -E 's/(^Version: .*|turku-common \(= [^)]*)(~deb)/\1.1\2/' /tmp/changed/DEBIAN/control
  dpkg-deb -Znone --build /tmp/changed /tmp/newer >/dev/null
  rm -rf /tmp/changed
done
# A table that is gone, and a row that says that its migration did not happen, stand for an older database.
python3 - <<'EOF'
import sqlite3
database = sqlite3.connect("/var/lib/turku-api/db.sqlite3")
database.execute("DROP TABLE django_session")
database.execute("DELETE FROM django_migrations WHERE app = 'sessions'")
database.commit()
EOF
dpkg -i /tmp/newer/*.deb >/tmp/upgrade.log 2>&1 || { cat /tmp/upgrade.log; fail upgrade; }
grep -q 'Turku: upgraded from .* What changed: ' /tmp/upgrade.log || { cat /tmp/upgrade.log; fail "the upgrade does not say what changed"; }
zcat /usr/share/doc/turku-common/changelog.gz | grep -q '^# Changelog' || fail "no changelog"
python3 -c 'import sqlite3; sqlite3.connect("/var/lib/turku-api/db.sqlite3").execute("SELECT * FROM django_session")' ||
  fail "the upgrade did not migrate"
for file in /etc/turku-agent/config.d/mine.json /etc/turku-storage/config.d/mine.json /etc/turku-api/environment \
            /var/lib/turku-storage/catalog /var/lib/turku-agent/identity; do
  [ -e "$file" ] || fail "the upgrade removed $file"
done
expect "$(enabled)" 3 "enabled units after the upgrade"
[ "$(stat --format=%U /var/lib/turku-api/db.sqlite3)" = turku-api ] || fail "the database belongs to another user"

# A migration that fails is told, and a second try finishes the upgrade.
echo 'TURKU_DATABASE_URL=postgresql://nobody@127.0.0.1:1/none' >>/etc/turku-api/environment
! dpkg -i /packages/turku-*.deb >/tmp/failing.log 2>&1 || fail "an upgrade passes although its migration failed"
grep -q 'turku-api: the database could not be migrated' /tmp/failing.log || { cat /tmp/failing.log; fail "the failure is not told"; }
sed -i '$d' /etc/turku-api/environment
dpkg --configure turku-api >/tmp/again.log 2>&1 || { cat /tmp/again.log; fail "the second try"; }

# A removal keeps configuration and state and says so. A purge says what it took, and keeps backups.
dpkg --remove turku-agent turku-storage turku-api turku-common >/tmp/remove.log 2>&1 || { cat /tmp/remove.log; fail remove; }
for role in "${roles[@]}"; do grep -q "^turku-$role: .* stay" /tmp/remove.log || fail "the removal of turku-$role says nothing"; done
[ -e /etc/turku-agent/config.d/mine.json ] && [ -e /var/lib/turku-api/db.sqlite3 ] || fail "a removal took configuration or state"
[ ! -e /usr/lib/turku ] || { find /usr/lib/turku | head; fail "the removal leaves files"; }
dpkg --purge turku-agent turku-storage turku-api turku-common >/tmp/purge.log 2>&1 || { cat /tmp/purge.log; fail purge; }
for role in "${roles[@]}"; do grep -q "^turku-$role: .* removed" /tmp/purge.log || fail "the purge of turku-$role says nothing"; done
for path in /etc/turku-{agent,storage,api} /var/lib/turku-{agent,api,storage-login}; do [ ! -e "$path" ] || fail "the purge leaves $path"; done
[ -e /var/lib/turku-storage/catalog ] && [ -e /srv/volume/backup/file ] || fail "the purge took backups"
expect "$(enabled)" 0 "enabled units after the purge"
