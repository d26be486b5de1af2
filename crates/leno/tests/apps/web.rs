//! Web servers with curl: nginx over HTTP/1.1, over HTTP/2 without TLS, and over its own TLS; Python's `http.server`.

use crate::scenario::{Need, Scenario};

/// nginx with HTTP/1.1, and curl.
pub(crate) const NGINX: Scenario = Scenario {
    name: "nginx",
    port: 8080,
    needs: &[Need::Program("nginx"), Need::Program("curl")],
    files: &[("nginx.conf", NGINX_CONF)],
    prepare: WEB_FILES,
    server: "sed \"s/LISTEN/127.0.0.1:$PORT/\" nginx.conf > made.conf; rm -f swallow.sock; exec nginx -p $DIR -c made.conf -e stderr",
    client: "
        url=http://$HOST:$PORT
        ask() { curl -sS --http1.1 -m 30 \"$@\"; }
        ask $url/small
        ask $url/large | cksum
        ask -r 1000000-1000999 $url/large | cksum
        ask -I $url/large | tr -d '\\r' | tr A-Z a-z \\
            | grep -E '^(http|content-length|content-type|etag|accept-ranges|last-modified)' | sort
        ask -o /dev/null -w '%{http_code} %{content_type}\\n' $url/absent
        ask -L -w '%{http_code} after %{num_redirects}\\n' $url/moved
        ask -o /dev/null -w '%{http_code}\\n' -H 'If-Modified-Since: Sun, 02 Feb 2020 00:00:00 GMT' $url/small
        ask -o /dev/null -w '%{http_code}\\n' -X DELETE $url/small
        ask -o /dev/null -o /dev/null -o /dev/null -w '%{num_connects};' $url/small $url/large $url/small; echo
        ask -H \"x-mark: $MARK\" $url/echo
        ask --data-binary @large -H 'content-type: text/plain' -w '%{http_code}\\n' $url/swallow
        ask -H 'expect: 100-continue' --data-binary @small -w '%{http_code}\\n' $url/swallow
        ask --compressed -w '%{http_code}\\n' $url/text | cksum
        ask -T large $url/put/one -w '%{http_code}\\n'; ask $url/put/one | cksum; ask -X DELETE -w '%{http_code}\\n' $url/put/one
        seq 40 | sed \"s|.*|url=$url/small|\" > list
        ask -Z --parallel-max 20 -K list | sort | uniq -c
    ",
    expect: &[
        "a small file\n",
        "content-length: 3000000",
        "404 text/html",
        "200 after 1",
        "304\n",
        "405\n",
        "1;0;0;",
        "you sent leno-mark-nginx-seen",
        "201\n",
        "204\n",
        "40 a small file",
    ],
    ..Scenario::BARE
};

/// The same over HTTP/2 without TLS: nginx of this age speaks nothing else on such a port.
pub(crate) const NGINX_HTTP2: Scenario = Scenario {
    name: "nginx-http2",
    port: 8081,
    needs: &[Need::Program("nginx"), Need::Program("curl"), Need::Program("nghttp"), Need::Program("h2load")],
    server: "sed \"s/LISTEN/127.0.0.1:$PORT http2/\" nginx.conf > made.conf; rm -f swallow.sock; exec nginx -p $DIR -c made.conf -e stderr",
    client: "
        url=http://$HOST:$PORT
        ask() { curl -sS --http2-prior-knowledge -m 30 \"$@\"; }
        ask -w '%{http_version}\\n' $url/small
        ask $url/large | cksum
        ask -r 1000000-1000999 $url/large | cksum
        ask -I $url/large | tr -d '\\r' | tr A-Z a-z \\
            | grep -E '^(http|content-length|content-type|etag|accept-ranges|last-modified)' | sort
        ask -o /dev/null -w '%{http_code} %{content_type}\\n' $url/absent
        ask -o /dev/null -w '%{http_code} to %{redirect_url}\\n' $url/moved
        ask -H \"x-mark: $MARK\" -H 'x-plain: never indexed' $url/echo
        ask --data-binary @large -H 'content-type: text/plain' -w '%{http_code}\\n' $url/swallow
        ask -T large $url/put/one -w '%{http_code}\\n'; ask $url/put/one | cksum; ask -X DELETE -w '%{http_code}\\n' $url/put/one
        ask -r 0-20000 $url/large > part-in; cmp -n 20001 part-in large && echo same
        nghttp -n -s $url/small $url/small $url/large | grep -c ' 200 '
        h2load -n 300 -c 3 -m 20 $url/small | grep -E '^(requests|status)'
    ",
    expect: &[
        "a small file\n2\n",
        "http/2 200",
        "404 text/html",
        "301 to http://nginx-http2:8081/small\n",
        "201\n",
        "204\n",
        "same\n",
        "300 succeeded, 0 failed",
    ],
    // Header compression hides it.
    clear: false,
    ..NGINX
};

/// nginx with a certificate of its own: the application's TLS stays between application and client.
pub(crate) const NGINX_TLS: Scenario = Scenario {
    name: "nginx-tls",
    port: 8443,
    needs: &[Need::Program("nginx"), Need::Program("curl"), Need::Program("openssl")],
    prepare: "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=nginx-tls \\
            -addext subjectAltName=DNS:nginx-tls -keyout key.pem -out cert.pem
        # web files
        yes 'bytes that show a shift, a cut or a repetition' | cat -n | head -c 3000000 > large
        echo 'a small file' > small; cp large text; mkdir -p temp
    ",
    server: "
        sed \"s|LISTEN|127.0.0.1:$PORT ssl http2; ssl_certificate $DIR/cert.pem; ssl_certificate_key $DIR/key.pem|\" \\
            nginx.conf > made.conf
        rm -f swallow.sock; exec nginx -p $DIR -c made.conf -e stderr
    ",
    client: "
        url=https://$HOST:$PORT
        ask() { curl -sS -m 30 --cacert cert.pem \"$@\"; }
        ask -w '%{http_version} %{ssl_verify_result}\\n' $url/small
        ask --http1.1 -w '%{http_version}\\n' $url/small
        ask -o /dev/null -o /dev/null -o /dev/null -w '%{num_connects};' $url/small $url/large $url/small; echo
        ask $url/large | cksum
        ask --data-binary @large -H 'content-type: text/plain' -w '%{http_code}\\n' $url/swallow
        printf 'url=%s/large\\noutput=/dev/null\\n' $url $url $url $url $url $url > list
        ask -Z --parallel-max 6 -w '%{http_code} %{size_download} by %{http_version}\\n' -K list
        ask --tlsv1.2 --tls-max 1.2 -H \"x-mark: $MARK\" $url/echo
        curl -sS -m 30 $url/small 2>&1 || echo 'and without its authority it is refused'
    ",
    expect: &["a small file\n2 0\n", "1.1\n", "1;0;0;\n", "200 3000000 by 2", "you sent leno-mark", "refused"],
    clear: false,
    ..NGINX
};

/// Python's own web server, which speaks HTTP/1.0 and ends bodies by closing.
pub(crate) const PYTHON_HTTP: Scenario = Scenario {
    name: "python-http",
    port: 8000,
    needs: &[Need::Program("python3"), Need::Program("curl")],
    files: &[("fetch.py", include_str!("programs/fetch.py"))],
    prepare: "
        mkdir site
        yes 'bytes that show a shift, a cut or a repetition' | cat -n | head -c 1000000 > site/large
        echo \"$MARK\" > site/small; mkdir site/below; touch -d '2020-02-02 UTC' site/*
    ",
    server: "exec python3 -m http.server $PORT --bind 127.0.0.1 --directory site",
    client: "
        url=http://$HOST:$PORT
        for turn in 1 2 3; do curl -sS -m 30 $url/large | cksum; done
        curl -sS -m 30 $url/
        curl -sS -m 30 $url/small
        curl -sS -m 30 -I $url/large | tr -d '\\r' | tr A-Z a-z | grep -E '^(content-|last-)' | sort
        curl -sS -m 30 -o /dev/null -w '%{http_code} ' $url/absent $url/below -X POST $url/small; echo
        curl -sS -m 30 --http1.0 $url/small
        python3 fetch.py $url
    ",
    expect: &[
        "href=\"large\"",
        "leno-mark-python-http-seen\n",
        "content-length: 1000000",
        "urllib: 20 times 1000000",
    ],
    ..Scenario::BARE
};

#[test]
fn nginx_and_curl_over_http1() {
    NGINX.check();
}

#[test]
fn nginx_and_curl_over_http2() {
    NGINX_HTTP2.check();
}

#[test]
fn nginx_and_curl_over_tls_of_their_own() {
    NGINX_TLS.check();
}

#[test]
fn pythons_http_server_and_two_clients() {
    PYTHON_HTTP.check();
}

/// Files to serve, with bytes that show a shift, a cut or a repetition.
const WEB_FILES: &str = "
    yes 'bytes that show a shift, a cut or a repetition' | cat -n | head -c 3000000 > large
    echo 'a small file' > small; cp large text; mkdir -p temp put; touch -d '2020-02-02 UTC' small large text
";

const NGINX_CONF: &str = "
daemon off; pid made.pid; worker_processes 1; user root;
events { worker_connections 256; }
http {
    access_log off; absolute_redirect off; default_type application/octet-stream; client_max_body_size 10m;
    client_body_temp_path temp/b; proxy_temp_path temp/p; fastcgi_temp_path temp/f; uwsgi_temp_path temp/u;
    scgi_temp_path temp/s;
    server {
        listen LISTEN;
        root /run/test;
        location /moved { return 301 /small; }
        location /echo { return 200 'you sent $http_x_mark\\n'; }
        location /swallow { proxy_pass http://unix:/run/test/swallow.sock; }
        location /text { gzip on; gzip_types text/plain; default_type text/plain; }
        location /put/ { dav_methods PUT DELETE; create_full_put_path on; }
    }
    server { listen unix:/run/test/swallow.sock; return 200 'swallowed\\n'; }
}
";
