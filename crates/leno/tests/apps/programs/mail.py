"""Sends mail with Python's own client: several on one connection, one large one, one that is refused."""
import smtplib
import sys
from email.message import EmailMessage

host, port, mark = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def letter(subject, text):
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.org", "b@example.org", subject
    message.set_content(text)
    return message


with smtplib.SMTP(host, port, local_hostname="tester", timeout=30) as server:
    print(server.ehlo()[0], server.has_extn("size"))
    for number in range(20):
        server.send_message(letter(f"letter {number}", mark))
    print("20 messages")
    server.send_message(letter("large", "0123456789 " * 90_000))
    print("a large one was taken")
    print(server.noop()[0], server.docmd("nonsense")[0], server.rset()[0])
    print(server.mail("a@example.org")[0], server.rcpt("no address")[0])
