use std::net::Ipv4Addr;
use std::time::Duration;

use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::name::Name;
use domain::base::{Message, MessageBuilder, Serial, Ttl};
use domain::rdata::{A, Cname, Soa};
use leno_core::rng::Rng;

use super::check::{QUESTION, check};
use super::message::{NoReply, Query, Reply, Way};

fn query() -> Query {
    Query::parse(QUESTION, b"12345678").unwrap()
}

fn name(text: &str) -> Name<Vec<u8>> {
    Name::vec_from_str(text).unwrap()
}

/// What a resolver says about the question: `www.example.com` is an alias with addresses of these lives.
fn reply(lives: &[u32], rcode: Rcode, soa: Option<(u32, u32)>, opt: bool) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec().question();
    builder.header_mut().set_qr(true);
    builder.header_mut().set_id(7);
    builder.header_mut().set_rcode(rcode);
    builder.push((name("EXAMPLE.com"), Rtype::A, Class::IN)).unwrap();
    let mut builder = builder.answer();
    for life in lives {
        builder
            .push((name("example.com"), Ttl::from_secs(*life), A::new(Ipv4Addr::new(192, 0, 2, 1))))
            .unwrap();
    }
    let mut builder = builder.authority();
    if let Some((life, minimum)) = soa {
        let ttl = Ttl::from_secs(minimum);
        let data = Soa::new(name("ns.com"), name("root.com"), Serial(1), ttl, ttl, ttl, ttl);
        builder.push((name("com"), Ttl::from_secs(life), data)).unwrap();
    }
    let mut builder = builder.additional();
    if opt {
        let sized = builder.opt(|opt| {
            opt.set_udp_payload_size(4096);
            Ok(())
        });
        sized.unwrap();
    }
    builder.finish()
}

fn lifetime(bytes: &[u8]) -> u64 {
    Reply::parse(bytes, &query(), 7).unwrap().lifetime.as_secs()
}

#[test]
fn an_answer_is_remembered_as_long_as_its_shortest_record_says() {
    assert_eq!(lifetime(&reply(&[300, 60, 4000], Rcode::NOERROR, None, true)), 60);
    assert_eq!(lifetime(&reply(&[0, 60], Rcode::NOERROR, None, false)), 0);
    assert_eq!(lifetime(&reply(&[100_000], Rcode::NOERROR, None, false)), 3_600);
    // There is nothing: as long as the authority says, and not at all when there is none.
    assert_eq!(lifetime(&reply(&[], Rcode::NXDOMAIN, Some((900, 60)), true)), 60);
    assert_eq!(lifetime(&reply(&[], Rcode::NOERROR, Some((30, 60)), true)), 30);
    assert_eq!(lifetime(&reply(&[], Rcode::NOERROR, Some((9_000, 9_000)), true)), 300);
    assert_eq!(lifetime(&reply(&[], Rcode::NXDOMAIN, None, true)), 0);
    assert_eq!(lifetime(&reply(&[60], Rcode::SERVFAIL, None, true)), 0);
}

#[test]
fn an_alias_of_something_that_is_not_there_is_no_answer() {
    let mut builder = MessageBuilder::new_vec().question();
    builder.header_mut().set_qr(true);
    builder.header_mut().set_id(7);
    builder.push((name("example.com"), Rtype::A, Class::IN)).unwrap();
    let mut builder = builder.answer();
    builder.push((name("example.com"), Ttl::from_secs(600), Cname::new(name("nothing.com")))).unwrap();
    assert_eq!(lifetime(&builder.additional().finish()), 0);
}

#[test]
fn what_does_not_answer_the_question_is_foreign() {
    let good = reply(&[60], Rcode::NOERROR, None, true);
    assert!(Reply::parse(&good, &query(), 7).is_ok());
    assert_eq!(Reply::parse(&good, &query(), 8).unwrap_err(), NoReply::Foreign);
    let mut other = good.clone();
    other[14] = b'Y';
    assert_eq!(Reply::parse(&other, &query(), 7).unwrap_err(), NoReply::Foreign);
    let mut asked = good.clone();
    asked[2] &= 0x7f;
    assert_eq!(Reply::parse(&asked, &query(), 7).unwrap_err(), NoReply::Foreign);
    let mut short = good.clone();
    short.truncate(good.len() - 15);
    assert_eq!(Reply::parse(&short, &query(), 7).unwrap_err(), NoReply::Broken);
    let mut more = good;
    more[2] |= 2;
    assert_eq!(Reply::parse(&more, &query(), 7).unwrap_err(), NoReply::Truncated);
}

#[test]
fn a_remembered_answer_counts_down_and_keeps_the_clients_case() {
    let reply = Reply::parse(&reply(&[300, 90_000], Rcode::NOERROR, None, true), &query(), 7).unwrap();
    let relayed = query().relay(&reply, Some(Duration::from_secs(100)), Way::Udp);
    let message = Message::from_octets(relayed).unwrap();
    assert_eq!(message.first_question().unwrap().qname().to_string(), "example.com");
    let lives: Vec<u32> = message.answer().unwrap().map(|record| record.unwrap().ttl().as_secs()).collect();
    assert_eq!(lives, [200, 3_500]);
    assert_eq!(message.header().id(), 0x1234);
    // The client has not said that it knows the record.
    assert!(message.opt().is_none());
}

#[test]
fn a_client_gets_no_more_than_it_can_take() {
    let large = reply(&[60; 50], Rcode::NOERROR, None, true);
    let reply = Reply::parse(&large, &query(), 7).unwrap();
    let short = query().relay(&reply, Some(Duration::ZERO), Way::Udp);
    assert!(short.len() <= 512 && Message::from_octets(&*short).unwrap().header().tc());
    let whole = query().relay(&reply, Some(Duration::ZERO), Way::Tcp);
    assert_eq!(Message::from_octets(&*whole).unwrap().header_counts().ancount(), 50);
    assert!(!Message::from_octets(&*whole).unwrap().header().tc());
}

/// What a fuzzer found, and what it began with.
#[test]
fn the_fuzzers_inputs() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let mut count = 0;
    for place in ["corpus/dns", "found/dns"] {
        for file in std::fs::read_dir(folder.join(place)).into_iter().flatten().flatten() {
            check(&std::fs::read(file.path()).unwrap());
            count += 1;
        }
    }
    assert!(count >= 7, "{count}");
}

#[test]
fn any_bytes_are_answered_or_not_and_nothing_breaks() {
    let forwarded = query().forward(7, b"leno-dns", true);
    let seeds = [
        QUESTION.to_vec(),
        forwarded,
        reply(&[60, 3], Rcode::NOERROR, Some((5, 6)), true),
        reply(&[], Rcode::NXDOMAIN, Some((5, 6)), false),
    ];
    for seed in &seeds {
        check(seed);
    }
    let mut rng = Rng::new(3);
    for _ in 0..30_000 {
        let mut bytes = seeds[rng.below(4) as usize].clone();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes.insert(at, rng.next_u64() as u8),
                2 => bytes[at] = 0xc0,
                _ => bytes[at] = rng.next_u64() as u8,
            }
        }
        check(&bytes);
    }
}
