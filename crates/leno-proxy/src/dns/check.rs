//! What holds for any bytes, called by an ordinary test and by a fuzzer (`fuzz/fuzz_targets/dns.rs`): nothing panics, no answer is
//! larger than the client can take, and every answer made is one to the question.

use std::net::IpAddr;
use std::time::Duration;

use domain::base::Message;
use leno_core::dns::{Answer, Place};
use leno_core::vip::Vips;

use super::message::{NoReply, Query, Reply, Unreadable, Way};

/// The question that answers are read for.
pub(crate) const QUESTION: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";

/// Reads `bytes` as a question, and as the answer to one.
pub(crate) fn check(bytes: &[u8]) {
    const TOKEN: [u8; 8] = *b"leno-dns";
    match Query::parse(bytes, &TOKEN) {
        Ok(query) => asked(bytes, &query),
        Err(Unreadable::Broken(answer) | Unreadable::Refused(answer)) => {
            let message = Message::from_octets(&*answer).expect("an answer is a message");
            assert!(message.header().qr(), "nobody answers it again");
            assert!(answer.len() <= bytes.len() + 11, "a refusal is no larger than what it refuses");
        }
        Err(Unreadable::Silent) => {}
    }
    let query = Query::parse(QUESTION, &TOKEN).expect("it is a question");
    // Whatever its id is, so that the fuzzer need not guess it.
    let id = bytes.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    match Reply::parse(bytes, &query, id) {
        Ok(reply) => answered(&query, &reply),
        Err(NoReply::Foreign | NoReply::Broken | NoReply::Truncated) => {}
    }
}

fn asked(bytes: &[u8], query: &Query) {
    let mut vips = Vips::new();
    let id = leno_core::name::ServiceId::parse("cart").expect("a name");
    let vip = vips.service(&id);
    let apex = query.labels().len();
    let place = Place { name: "cart-1.cart.default.mesh".into(), port: 80, weight: 1, vip };
    let answers = [
        Answer::Addresses(vip.addresses().filter(IpAddr::is_ipv4).collect()),
        Answer::Addresses(vec![vip.v6.into(); 300]),
        Answer::Places(vec![place; 40]),
        Answer::Name("cart.default.mesh".into()),
        Answer::NoData(apex),
        Answer::NoName(apex.min(1)),
        Answer::Unsure,
    ];
    for (turn, answer) in answers.iter().enumerate() {
        for way in [Way::Udp, Way::Tcp] {
            let encoded = query.answer(answer, turn, way);
            same_question(bytes, &encoded, way);
        }
    }
    let forwarded = query.forward(77, b"leno-dns", true);
    let read = Query::parse(&forwarded, b"leno-dns").expect("what is forwarded is a question");
    assert!(read.own, "it is recognised");
    assert_eq!(read.key(), query.key(), "it is the same question");
}

fn answered(query: &Query, reply: &Reply) {
    for way in [Way::Udp, Way::Tcp] {
        for age in [Some(Duration::ZERO), Some(Duration::from_secs(90_000)), None] {
            let relayed = query.relay(reply, age, way);
            same_question(QUESTION, &relayed, way);
            let Ok(again) = Reply::parse(&relayed, query, 0x1234) else {
                assert!(way == Way::Udp && Message::from_octets(&*relayed).is_ok_and(|it| it.header().tc()));
                continue;
            };
            assert_eq!(again.rcode, reply.rcode);
            assert!(again.lifetime <= Duration::from_secs(3_600));
        }
    }
}

fn same_question(question: &[u8], answer: &[u8], way: Way) {
    let (asked, message) = (
        Message::from_octets(question).expect("it was read"),
        Message::from_octets(answer).expect("an answer is a message"),
    );
    assert!(message.header().qr() && message.header().id() == asked.header().id());
    let ours = message.sole_question().expect("it has a question");
    let theirs = asked.sole_question().expect("it was read");
    // To the letter: some clients check the case.
    let letters = |name: &dyn ToString| name.to_string();
    assert_eq!(letters(ours.qname()), letters(theirs.qname()));
    assert_eq!(ours.qtype(), theirs.qtype());
    assert!(message.sections().is_ok(), "{answer:?}");
    let mut section = Some(message.answer().expect("sections"));
    while let Some(mut records) = section {
        assert!(records.by_ref().all(|record| record.is_ok()), "{answer:?}");
        section = records.next_section().expect("sections");
    }
    assert!(answer.len() <= if way == Way::Udp { 1232 } else { 65_535 });
}
