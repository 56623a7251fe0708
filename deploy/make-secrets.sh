#!/bin/sh
# Make the secrets that docker-compose.yml reads, as files in ./secrets; what is there
# already stays. Run it in the folder of docker-compose.yml.
set -eu

folder=${1:-secrets}
name=${HOTSWAP_ALLOWED_HOSTS:-localhost}
# The folder is its owner's alone. The files are shown to containers, whose users are
# others, one by one.
mkdir -p "$folder/proxy" "$folder/acme"
chmod 700 "$folder"
chmod 755 "$folder/proxy" "$folder/acme"

random() {
    head -c 96 /dev/urandom | base64 | tr -dc 'A-Za-z0-9' | head -c "$1"
}

keep() {
    if [ ! -s "$folder/$1" ]; then
        printf '%s' "$2" > "$folder/$1"
        chmod 644 "$folder/$1"
        echo "made $folder/$1"
    fi
}

keep secret_key "$(random 60)"
keep postgres_password "$(random 40)"
keep redis_password "$(random 40)"
keep proxy_secret "$(random 40)"
keep metrics_token "$(random 40)"
keep admin_password "$(random 20)"
keep grafana_password "$(random 20)"
keep database_password "$(random 40)"
keep database_url "postgresql://hotswap_app:$(cat "$folder/database_password")@postgres:5432/hotswap"
keep database_owner_url "postgresql://hotswap:$(cat "$folder/postgres_password")@postgres:5432/hotswap"
keep redis_url "redis://:$(cat "$folder/redis_password")@redis:6379/0"
keep proxy/secret.conf "set \$hotswap_secret \"$(cat "$folder/proxy_secret")\";"

if [ ! -s "$folder/proxy/server.crt" ]; then
    # To begin with; put the certificate of an authority in its place.
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 \
        -subj "/CN=$name" -addext "subjectAltName=DNS:$name" \
        -keyout "$folder/proxy/server.key" -out "$folder/proxy/server.crt" 2> /dev/null
    echo "made $folder/proxy/server.crt, signed by itself, for $name"
fi
echo "The first administrator's password is in $folder/admin_password."
