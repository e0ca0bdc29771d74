//! What the help of a command ends with: lines to try, and the exit codes that are its own.

pub const VALIDATE: &str = "\
Examples:
  evenkeel validate                              ./evenkeel.toml, or else all of /etc/evenkeel
  evenkeel validate -f base.toml -f local.toml   the second on top of the first
  evenkeel validate -f - < evenkeel.toml         paths in it begin in the working directory
  evenkeel validate --json                       one object with file, line and column of every problem

It needs neither root nor an engine. Exit codes: 0 valid, 1 not.";

pub const CONFIG: &str = "\
Examples:
  evenkeel config -f base.toml -f local.toml     what the two are together, with variables and paths resolved";

pub const LOCK: &str = "\
Examples:
  evenkeel lock                                  a line for each image that has none; the others stay
  evenkeel lock --update web                     what the tag of `web` stands for now
  evenkeel lock --check                          in CI: 2 when a line is missing or idle; asks no registry

Keep the lock file in git: evenkeel.lock beside evenkeel.toml, shop.lock beside shop.toml. Exit codes: 0, 1 error, 2 not what the manifest needs (with --check).";

pub const PLAN: &str = "\
Examples:
  evenkeel plan --detailed-exitcode              2 when there is something to do
  evenkeel plan -o release.plan                  for review; then `evenkeel apply release.plan`
  evenkeel plan --target web                     web and what it needs
  evenkeel plan --remove-volume pgdata           data is given up by name only

TIME is such as 500ms, 30s or 5m. Exit codes: 0, 1 error, 2 changes pending (with --detailed-exitcode), 4 refused by a \
guard.";

pub const APPLY: &str = "\
Examples:
  evenkeel apply --wait --timeout 2m             come back when all runs and is healthy
  evenkeel apply --dry-run                       the same as `evenkeel plan`
  evenkeel apply release.plan                    exactly what `evenkeel plan -o release.plan` said, or 5
  evenkeel apply --lock-timeout 1m               behind an apply that is at it

TIME is such as 500ms, 30s or 5m. Exit codes: 0 done or nothing to do, 1 error, 2 there was something to do (with \
--detailed-exitcode), 3 degraded or rolled back, 4 refused by a guard, 5 stale plan or another command is changing this state root.";

pub const WATCH: &str = "\
Examples:
  evenkeel watch -f /etc/evenkeel                what examples/systemd/evenkeel.service runs
  evenkeel watch --interval 5m                   look at everything every five minutes; events are heard at once

TIME is such as 30s or 5m. SIGHUP reads the manifests again, SIGTERM and SIGINT end watching; containers go on.";

pub const EVENTS: &str = "\
Examples:
  evenkeel events                                what happens from now on, until Ctrl-C
  evenkeel events --since 1h --until 0s          what happened within the last hour
  evenkeel events -f type=container -f event=die --format '{{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}'
  evenkeel events -f project=shop --format json  an object a line, with Docker's names

A line is the time, the type, the action, the id and, in parentheses, what is known of it; `by` says which command did \
it, or `monitor` where a restart policy did. The last 8 to 16 MiB are kept, in ROOT/events, for root alone; \
the arguments of `exec` are among them, so a password is for a variable or standard input.";

pub const DOWN: &str = "\
Examples:
  evenkeel down --dry-run --volumes              what would go, the data too; nothing is removed
  evenkeel down                                  containers and networks; volumes stay
  evenkeel down -p shop --volumes --yes          without the manifest, without a question, with the data

TIME is such as 500ms, 30s or 5m. Exit codes: 0, 1 error, 2 something would be removed (with --dry-run
--detailed-exitcode), 3 degraded, 4 not confirmed or refused by a guard, 5 another command is changing this state root.";

pub const STATUS: &str = "\
Examples:
  evenkeel status --detailed-exitcode            2 when something is not as declared
  evenkeel status --json                         for a monitoring system";

pub const RUN: &str = "\
Examples:
  evenkeel run --rm -it busybox:1.36 sh          a shell for a look, gone afterwards
  evenkeel run -d --name web -p 8080:80 nginx:1.27   at 127.0.0.1:8080, until the host is booted again
  evenkeel run --rm --network shop/back busybox:1.36 nslookup db   from inside a project's network

Exit codes: the command's own; 125 where it did not come to that, 126 it cannot be executed, 127 it is not there.";

pub const PS: &str = "\
Examples:
  evenkeel ps -a --filter status=exited -q       the ids of all that have ended
  evenkeel ps --format '{{.Names}}:{{.Ports}}'   a line for each, for a script";

pub const CP: &str = "\
One of the two is in a container: CONTAINER:PATH. `-` is a tar archive on standard input or output.

Examples:
  evenkeel cp db:/etc/postgresql.conf .          out of it
  evenkeel cp conf/. web:/etc/web                what is in conf, not conf itself
  evenkeel cp web:/var/log - > logs.tar          as an archive";

pub const LOGS: &str = "\
Examples:
  evenkeel logs -f web                           all replicas of web, and what comes
  evenkeel logs --since 10m --tail 100 -t db     at most 100 lines of the last ten minutes, each with its time
  evenkeel --file shop.toml logs web             `-f` behind `logs` follows; a manifest is named with --file";

pub const EXEC: &str = "\
Examples:
  evenkeel exec -it db sh                        a shell in a terminal
  evenkeel exec db pg_dump shop > shop.sql       its output, its exit code
  evenkeel exec web.2 env                        the second replica";

pub const STATS: &str = "\
Examples:
  evenkeel stats --no-stream --json              one document: bytes, and processor time in per cent of one
  evenkeel stats --interval 5s web

TIME is such as 500ms, 30s or 5m.";

pub const COMPLETIONS: &str = "\
Examples:
  evenkeel completions bash > /etc/bash_completion.d/evenkeel
  evenkeel completions zsh > /usr/local/share/zsh/site-functions/_evenkeel
  evenkeel completions fish > /etc/fish/completions/evenkeel.fish";
