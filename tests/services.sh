#!/usr/bin/env bash
# Installs and starts what tests need beside Python, on Debian and Ubuntu. One function for each, and all of them, or
# those named as arguments: `tests/services.sh chromium`. Running it again changes nothing.
#
# A new server is a function need_… here, a word in ALL, and a fixture in tests/conftest.py that skips, or fails with CI=true,
# where the server is missing.
set -euo pipefail

ALL=(python chromium opensearch postgresql mariadb compose rabbitmq prometheus)

say() { printf 'services: %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "needs root or sudo for: $*" >&2
        return 1
    fi
}

updated=''
# Debian packages, each only where it is missing, after one update of the package lists.
debian() {
    local package missing=()
    for package in "$@"; do
        dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        say "no apt-get here; install these yourself: ${missing[*]}" >&2
        return 1
    fi
    say "installing ${missing[*]}"
    if [ -z "$updated" ]; then
        as_root apt-get update -qq
        updated=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The browser of the page tests; any Chromium or Chrome in the path will do.
need_chromium() {
    local name
    for name in chromium chromium-browser google-chrome; do
        if type -P "$name" >/dev/null; then
            say "chromium is $(type -P "$name")"
            return 0
        fi
    done
    debian chromium fonts-dejavu-core
    say "chromium is $(type -P chromium)"
}

# Virtual environments: Debian ships Python without them.
need_python() {
    if python3 -c 'import ensurepip, venv' 2>/dev/null; then
        say "python3 can make virtual environments"
        return 0
    fi
    debian python3 python3-venv
}

# The distributions of OpenSearch, from the registry of Java packages into a cache folder (SITEWARD_TEST_OPENSEARCH names
# another), and a Java for each: 2.x runs on 11 to 21, 3.x from 21 on. Where the packages of this system have no such Java,
# that version's tests are missing.
need_opensearch() {
    local folder=${SITEWARD_TEST_OPENSEARCH:-${XDG_CACHE_HOME:-$HOME/.cache}/siteward/opensearch}
    local wanted file missing=()
    for wanted in distribution.integ-test-zip:opensearch:2.19.3 distribution.integ-test-zip:opensearch:3.3.2 \
        plugin:opensearch-security:2.19.3.0; do
        file=${wanted#*:}
        [ -s "$folder/${file%:*}-${file#*:}.zip" ] || missing+=("$wanted")
    done
    need_java 11 21 openjdk-17-jre-headless || true
    need_java 21 99 openjdk-25-jre-headless openjdk-21-jre-headless || true
    if [ "${#missing[@]}" -gt 0 ]; then
        type -P mvn >/dev/null || debian maven
        mkdir -p "$folder"
        for wanted in "${missing[@]}"; do
            say "downloading $wanted"
            mvn -q org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
                "-Dartifact=org.opensearch.$wanted:zip" "-DoutputDirectory=$folder"
        done
    fi
    say "opensearch is in $folder"
}

# A Java whose version lies between two bounds: one that is there, else the first of the packages that there is.
need_java() {
    local from=$1 to=$2 home version package
    shift 2
    for home in "${OPENSEARCH_JAVA_HOME:-}" "${JAVA_HOME:-}" /usr/lib/jvm/*; do
        [ -n "$home" ] && [ -r "$home/release" ] || continue
        version=$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$home/release")
        if [ -n "$version" ] && [ "$version" -ge "$from" ] && [ "$version" -le "$to" ]; then
            say "java $version is $home"
            return 0
        fi
    done
    for package in "$@"; do
        if apt-cache show "$package" >/dev/null 2>&1; then
            debian "$package"
            return 0
        fi
    done
    say "no Java from $from to $to, and no package of one: install a JDK below /usr/lib/jvm" >&2
    return 1
}

# What reads docker-compose.yml the way Docker Compose does, a small Go program, the servers that only the composition
# has, and what its health checks call. Go from 1.21 on fetches the version that the program asks for.
need_compose() {
    need_postgresql
    debian prometheus-alertmanager curl
    type -P go >/dev/null || debian golang-go ca-certificates
    case "$(go env GOVERSION 2>/dev/null)" in
        '' | go1.[0-9] | go1.[0-9].* | go1.1[0-9]* | go1.20*)
            say "go is too old to read docker-compose.yml: install Go 1.21 or newer, and have it in the path" >&2
            return 1
            ;;
    esac
    (cd "$(dirname "${BASH_SOURCE[0]}")/compose" && go mod download)
    say "go is $(type -P go)"
}

# PostgreSQL; the tests start servers of their own. Debian starts one with the installation: nobody has asked for that, and
# it is stopped. One that was here before is left alone.
need_postgresql() {
    local found
    if ! found=$(compgen -G '/usr/lib/postgresql/*/bin/postgres' || type -P postgres); then
        debian postgresql
        as_root service postgresql stop >/dev/null 2>&1 || true
        found=$(compgen -G '/usr/lib/postgresql/*/bin/postgres')
    fi
    say "postgresql is ${found##*$'\n'}"
}

# MariaDB, of which the core packages have the server and no service; the tests start servers of their own.
need_mariadb() {
    local name PATH=$PATH:/usr/sbin
    for name in mariadbd mariadb-install-db my_print_defaults; do
        type -P "$name" >/dev/null && continue
        # The two exclude each other: apt would remove MySQL, and its service with it, without asking.
        if [ "${CI:-}" != true ] && dpkg-query --show --showformat='${Status}' 'mysql-server-core-*' 2>/dev/null |
            grep -q 'ok installed'; then
            say "MySQL is installed, which excludes MariaDB: remove it first if you can do without" >&2
            return 1
        fi
        debian mariadb-server-core mariadb-client-core
        break
    done
    say "mariadb is $(type -P mariadbd)"
}

# RabbitMQ with the plugins it is shipped with; the tests start nodes of their own and need no running service.
need_rabbitmq() {
    debian rabbitmq-server
    if [ ! -x /usr/lib/rabbitmq/bin/rabbitmq-server ] && ! type -P rabbitmq-server >/dev/null; then
        say "rabbitmq-server is in no place where the tests look for it: have it in the path" >&2
        return 1
    fi
    say "rabbitmq is installed"
}

# Prometheus with promtool; the tests start servers of their own and need no running service.
need_prometheus() {
    local name
    for name in prometheus promtool; do
        if ! type -P "$name" >/dev/null; then
            debian prometheus
            break
        fi
    done
    type -P promtool >/dev/null || { say "promtool is in no folder of the path" >&2; return 1; }
    say "prometheus is $(type -P prometheus)"
}

[ "$#" -gt 0 ] || set -- "${ALL[@]}"
for service in "$@"; do
    case " ${ALL[*]} " in
        *" $service "*) "need_$service" ;;
        *)
            say "no service is called $service; there are: ${ALL[*]}" >&2
            exit 2
            ;;
    esac
done
