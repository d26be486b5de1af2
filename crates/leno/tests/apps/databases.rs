//! Databases: PostgreSQL, whose client speaks first, and MariaDB, whose server does.

use crate::scenario::{Need, Scenario};

/// PostgreSQL with psql and pgbench.
pub(crate) const POSTGRES: Scenario = Scenario {
    name: "postgres",
    port: 5432,
    needs: &[
        Need::Program("psql"),
        Need::Program("pgbench"),
        Need::Program("setpriv"),
        Need::Program("openssl"),
        Need::PostgresServer,
    ],
    prepare: "
        bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
        # The server insists on a user who is not root, as Debian's package makes one.
        as='setpriv --reuid postgres --regid postgres --clear-groups'
        mkdir pg; chown postgres pg
        $as $bin/initdb -D pg/data -U tester -A trust --no-sync --no-instructions
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=postgres \\
            -keyout pg/data/server.key -out pg/data/server.crt
        chown postgres pg/data/server.*; chmod 600 pg/data/server.key
        printf '%s\\n' \"listen_addresses = '127.0.0.1'\" \"unix_socket_directories = ''\" 'fsync = off' 'ssl = on' \\
            >> pg/data/postgresql.conf
        ln -s $bin/postgres pg/postgres
    ",
    server: "exec setpriv --reuid postgres --regid postgres --clear-groups pg/postgres -D pg/data -p $PORT",
    client: "
        export PGHOST=$HOST PGPORT=$PORT PGUSER=tester PGDATABASE=postgres PGCONNECT_TIMEOUT=20 PGSSLMODE=disable
        ask() { psql -X -q -A -t -v ON_ERROR_STOP=1 \"$@\"; }
        ask -c 'drop table if exists things' -c 'create table things (id int primary key, text text)' 2>/dev/null
        seq 20000 | sed \"s/.*/&\\t$MARK &/\" | ask -c 'copy things from stdin'
        ask -c 'select count(*), sum(id), max(length(text)) from things'
        ask -c 'copy (select * from things order by id) to stdout' | cksum
        ask -c 'select * from things where id = 77'
        ask -c \"select repeat('x', 1048576)\" | cksum
        ask -c 'begin' -c 'delete from things' -c 'rollback' -c 'select count(*) from things'
        ask -c 'select 1/0' 2>&1 || true
        printf 'listen news;\\nnotify news, %s;\\nselect 1;\\n' \"'$MARK'\" | ask | sed 's/PID .*/PID./'
        # A statement that waits is cancelled over a second connection.
        ask -c 'set statement_timeout = 300' -c 'select pg_sleep(30)' 2>&1 || true
        # That it was asked for, once or twice, and that it happened are told in either order.
        timeout -s INT 0.7 psql -X -q -c 'select pg_sleep(30)' 2>&1 | sort -u || true
        PGSSLMODE=require ask -c 'select ssl, version from pg_stat_ssl where pid = pg_backend_pid()'
        PGSSLMODE=prefer ask -c \"select '$MARK' || ' inside of TLS'\"
        pgbench -q -i -s 1 2>&1 | grep -c done
        pgbench -n -c 4 -j 2 -t 25 2>&1 | grep -E 'processed|failed'
        pgbench -n -S -M prepared -c 8 -t 50 2>&1 | grep -E 'processed|failed'
        ask -c 'select count(*) from pgbench_accounts' -c 'select count(*) from pgbench_history'
    ",
    expect: &[
        "20000|200010000|",
        "division by zero",
        "Asynchronous notification \"news\"",
        "due to statement timeout",
        "due to user request",
        "t|TLSv1.3",
        "inside of TLS",
        "100/100",
        "400/400",
        "100000\n100\n",
    ],
    ..Scenario::BARE
};

/// MariaDB with its own client, in plain text and with the server's own TLS.
pub(crate) const MARIADB: Scenario = Scenario {
    name: "mariadb",
    port: 3306,
    needs: &[Need::Program("mariadbd"), Need::Program("mariadb"), Need::Program("mariadb-install-db"), Need::Program("openssl")],
    prepare: "
        mkdir db; chown mysql db
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=mariadb -keyout db/key.pem -out db/cert.pem
        chown mysql db/*.pem
        mariadb-install-db --no-defaults --user=mysql --datadir=$DIR/db/data --auth-root-authentication-method=normal \\
            --skip-test-db --skip-name-resolve --innodb-log-file-size=8M --innodb-flush-log-at-trx-commit=0
        printf '%s\\n' \"create user 'tester'@'%' identified by 'secret';\" \"grant all on *.* to 'tester'@'%';\" \\
            'create database things;' > db/init.sql
    ",
    server: "
        exec mariadbd --no-defaults --user=mysql --datadir=$DIR/db/data --bind-address=127.0.0.1 --port=$PORT \\
            --socket=$DIR/db/socket --pid-file=$DIR/db/pid --skip-name-resolve --innodb-log-file-size=8M \\
            --innodb-buffer-pool-size=32M --max-allowed-packet=16M --ssl-cert=$DIR/db/cert.pem --ssl-key=$DIR/db/key.pem
    ",
    client: "
        [ -e users ] || { mariadb --no-defaults -S db/socket -u root < db/init.sql; touch users; }
        export MYSQL_PWD=secret
        ask() { mariadb --no-defaults --skip-ssl --protocol=tcp -h $HOST -P $PORT -u tester --max-allowed-packet=16M -N -B \"$@\" things; }
        ask -e 'drop table if exists things; create table things (id int primary key, text varchar(100), large longblob)'
        seq 5000 | sed \"s/.*/&\\t$MARK &/\" > rows
        ask --local-infile=1 -e \"load data local infile 'rows' into table things (id, text)\"
        ask -e 'select count(*), sum(id), max(length(text)) from things'
        ask -e 'select id, text from things where id = 77'
        ask -e 'select id, text from things order by id' | cksum
        ask -e \"update things set large = repeat('x', 1048576) where id = 1; select md5(large) from things where id = 1\"
        ask -e 'select large from things where id = 1' | cksum
        ask -e 'start transaction; delete from things; rollback; select count(*) from things'
        ask -e 'select nonsense' 2>&1 || true
        mariadb --no-defaults --protocol=tcp -h $HOST -P $PORT -u tester -pwrong -e 'select 1' 2>&1 || true
        ask --ssl -e \"select variable_value from information_schema.session_status where variable_name = 'ssl_version'\"
        ask --compress -e \"select '$MARK compressed'\"
        ask -e \"prepare s from 'select ? + 1'; set @a = 41; execute s using @a\"
        mariadb-dump --no-defaults --protocol=tcp -h $HOST -P $PORT -u tester --skip-dump-date --compact things | cksum
    ",
    expect: &["5000\t12502500\t", "Unknown column", "Access denied for user 'tester'", "TLSv1.", "compressed\n", "42\n"],
    ..Scenario::BARE
};

#[test]
fn postgresql_and_psql() {
    POSTGRES.check();
}

#[test]
fn mariadb_and_its_client() {
    MARIADB.check();
}
