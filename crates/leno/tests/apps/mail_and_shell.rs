//! Servers that speak first: SMTP by aiosmtpd, and OpenSSH.

use crate::scenario::{Need, PYTHON, Scenario};

/// An SMTP server and Python's own client.
pub(crate) const SMTP: Scenario = Scenario {
    name: "smtp",
    port: 2525,
    needs: &[PYTHON],
    files: &[("mail.py", include_str!("programs/mail.py"))],
    server: "exec $PYTHON -m aiosmtpd -n -l 127.0.0.1:$PORT -c aiosmtpd.handlers.Mailbox $DIR/mailbox",
    client: "
        $PYTHON mail.py $HOST $PORT \"$MARK\"
        grep -h \"$MARK\" mailbox/new/* | sort | uniq -c
        # Nothing is said: the server's greeting comes by itself.
        nc -d $HOST $PORT < /dev/null > greeting & listener=$!
        until grep -q ^220 greeting; do sleep 0.02; done
        kill $listener; cut -d' ' -f1 greeting
        rm -r mailbox/new/*
    ",
    expect: &["250", "20 messages", "leno-mark-smtp-seen", "220\n", "a large one was taken"],
    ..Scenario::BARE
};

/// OpenSSH: its banner and keys, a command, a session with a half that ends, files.
pub(crate) const SSH: Scenario = Scenario {
    name: "ssh",
    port: 2222,
    needs: &[Need::Program("sshd"), Need::Program("ssh"), Need::Program("ssh-keyscan"), Need::Program("scp")],
    files: &[("sshd_config", SSHD_CONFIG)],
    prepare: "
        ssh-keygen -q -t ed25519 -N '' -f host-key
        ssh-keygen -q -t ed25519 -N '' -f user-key
        cp user-key.pub authorized; chmod 600 authorized user-key host-key
        yes 'bytes that show a shift, a cut or a repetition' | cat -n | head -c 3000000 > large
    ",
    server: "exec $(command -v sshd) -D -e -f sshd_config -p $PORT -h $DIR/host-key -o AuthorizedKeysFile=$DIR/authorized",
    client: "
        ssh-keyscan -T 20 -p $PORT $HOST 2> banner > known; cat known
        grep -o 'SSH-2.0-OpenSSH_[0-9]*' banner
        options=\"-F none -o BatchMode=yes -o ConnectTimeout=20 -o UserKnownHostsFile=$DIR/known -o IdentitiesOnly=yes\"
        options=\"$options -o StrictHostKeyChecking=yes -i $DIR/user-key -p $PORT\"
        ssh -v $options root@$HOST \"echo $MARK\" 2> said
        grep -oE 'kex: algorithm: .*|Authenticated to [a-z]*' said
        ssh $options root@$HOST cksum < large
        ssh $options root@$HOST \"cat $DIR/large\" | cksum
        ssh $options root@$HOST 'exit 7' || echo \"exited with $?\"
        ssh $options -T root@$HOST < /dev/null
        scp -q -F none -o BatchMode=yes -o UserKnownHostsFile=$DIR/known -i $DIR/user-key -P $PORT large root@$HOST:$DIR/copied
        cmp large copied && echo 'copied by scp'; rm copied
        ssh -i nobody $options -o IdentityFile=none root@$HOST true 2>&1 | grep -o 'Permission denied' || true
    ",
    expect: &["ssh-ed25519", "SSH-2.0-OpenSSH_", "leno-mark-ssh-seen\n", "kex: algorithm:", "exited with 7", "copied by scp"],
    clear: false,
};

#[test]
fn aiosmtpd_and_smtplib() {
    SMTP.check();
}

#[test]
fn openssh_client_and_server() {
    SSH.check();
}

const SSHD_CONFIG: &str = "
ListenAddress 127.0.0.1
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
PrintMotd no
PrintLastLog no
Subsystem sftp internal-sftp
";
