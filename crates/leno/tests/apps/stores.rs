//! Stores that are spoken to in a protocol of their own, in which the client speaks first: redis and memcached.

use crate::scenario::{Need, Scenario};

/// redis with its own clients: one command at a time, a pipeline, a subscription, many connections.
pub(crate) const REDIS: Scenario = Scenario {
    name: "redis",
    port: 6379,
    needs: &[Need::Program("redis-server"), Need::Program("redis-cli"), Need::Program("redis-benchmark")],
    server: "exec redis-server --bind 127.0.0.1 --port $PORT --save '' --appendonly no --protected-mode no --dir $DIR",
    client: "
        ask() { redis-cli -h $HOST -p $PORT \"$@\"; }
        ask FLUSHALL
        ask SET mark \"$MARK\"
        ask GET mark
        ask INCR counter; ask INCR counter
        head -c 1048576 /dev/zero | tr '\\0' x | ask -x SET large
        ask GET large | cksum
        ask RPUSH list a b c; ask LRANGE list 0 -1
        printf 'MULTI\\nINCR counter\\nINCR counter\\nEXEC\\n' | ask
        ask EVAL 'return {KEYS[1], ARGV[1]}' 1 key value
        ask GET list 2>&1
        seq 5000 | sed 's/.*/SET key:& value:&/' | ask --pipe | grep -E '^(errors|.*replies)'
        ask DBSIZE
        ask --csv SUBSCRIBE news > heard & subscriber=$!
        until [ \"$(ask PUBLISH news hello)\" = 1 ]; do sleep 0.05; done
        until grep -q hello heard; do sleep 0.05; done
        kill $subscriber; wait $subscriber || true
        head -3 heard
        ask -3 HELLO 3 | grep '^proto'
        ask BLPOP waited 20 > got & waiter=$!
        ask RPUSH waited now > /dev/null; wait $waiter; cat got
        ask --scan --pattern 'key:499*' | sort
        redis-benchmark -h $HOST -p $PORT -q -n 2000 -c 20 -P 4 -t set,get,lpush 2>&1 | tr '\\r' '\\n' \\
            | grep 'requests per second' | cut -d: -f1
        ask CLIENT LIST | wc -l
    ",
    expect: &[
        "leno-mark-redis-seen\n",
        "WRONGTYPE",
        "errors: 0, replies: 5000",
        "\"message\",\"news\",\"hello\"",
        "LPUSH",
    ],
    ..Scenario::BARE
};

/// memcached, spoken to by hand.
pub(crate) const MEMCACHED: Scenario = Scenario {
    name: "memcached",
    port: 11211,
    needs: &[Need::Program("memcached"), Need::Program("python3")],
    files: &[("memcached.py", include_str!("programs/memcached.py"))],
    server: "exec memcached -u memcache -l 127.0.0.1 -p $PORT -U 0 -m 64 -I 2m",
    client: "
        length=$(printf %s \"$MARK\" | wc -c)
        printf 'flush_all\\r\\nset mark 0 0 %s\\r\\n%s\\r\\nget mark\\r\\nadd mark 0 0 1\\r\\nx\\r\\nquit\\r\\n' \\
            $length \"$MARK\" | nc $HOST $PORT
        # The client's end alone: the server answers and closes.
        printf 'get mark\\r\\n' | nc -N $HOST $PORT
        printf 'nonsense\\r\\nversion\\r\\nquit\\r\\n' | nc $HOST $PORT
        python3 memcached.py $HOST $PORT
    ",
    expect: &["STORED", "NOT_STORED", "leno-mark-memcached-seen", "ERROR", "VERSION 1.", "1048576 bytes came back"],
    ..Scenario::BARE
};

#[test]
fn redis_and_its_clients() {
    REDIS.check();
}

#[test]
fn memcached_by_hand() {
    MEMCACHED.check();
}
