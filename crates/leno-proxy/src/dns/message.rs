//! Messages (RFC 1035 §4): what is asked, the answers made here, and what resolvers said. Names keep the case they were
//! written in, so that a client that checks it (to know a forged answer) finds its own.

use std::net::IpAddr;
use std::time::Duration;

use domain::base::iana::{Class, Opcode, OptRcode, OptionCode, Rcode, Rtype};
use domain::base::message_builder::{AdditionalBuilder, AnswerBuilder, OptBuilder, StaticCompressor};
use domain::base::name::{ParsedName, ToName};
use domain::base::opt::UnknownOptData;
use domain::base::wire::Composer;
use domain::base::{Message, MessageBuilder, Name, Serial, Ttl};
use domain::dep::octseq::Parser;
use domain::rdata::{A, Aaaa, Ptr, Soa, Srv};
use leno_core::dns::cache::{LIFETIME_MAX, NEGATIVE_LIFETIME_MAX, STALE_PAUSE};
use leno_core::dns::{Answer, Kind, NEGATIVE_TTL, Place, TTL};

/// The largest datagram sent, and asked for: it fits every path without fragments (DNS Flag Day 2020; the same in BIND and Unbound).
pub(crate) const DATAGRAM_BYTES_MAX: u16 = 1232;
/// The largest datagram for a client that does not say what it can take (RFC 1035 §4.2.1).
const PLAIN_DATAGRAM_BYTES_MAX: u16 = 512;
/// The longest message (RFC 1035 §4.2.2: its length has two bytes).
pub(crate) const MESSAGE_BYTES_MAX: usize = 65_535;
/// Records in one answer made here: more would not help anybody to connect.
const RECORDS_MAX: usize = 64;
/// Where the question begins: behind the header.
const HEADER_BYTES: usize = 12;
/// In our own queries: says who asks, so that a query which comes back to us is recognised. A number for local use (RFC 6891 §9).
const OWN_OPTION: u16 = 65_313;

/// Tells this process's own queries from others.
pub(crate) type Token = [u8; 8];

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Udp,
    Tcp,
}

/// A question that can be answered.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    id: u16,
    name: Name<Vec<u8>>,
    rtype: Rtype,
    /// Of a question that is answered: IN.
    class: Class,
    recursion_desired: bool,
    authentic_data: bool,
    checking_disabled: bool,
    edns: Option<Edns>,
    /// It is one that this process sent.
    pub(crate) own: bool,
}

/// What a client says beyond RFC 1035 (RFC 6891).
#[derive(Clone, Copy, Debug)]
struct Edns {
    size: u16,
    dnssec_ok: bool,
}

/// Why a message is no [`Query`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// No question at all: nothing is answered, so that nobody can be made to send.
    Silent,
    /// It is broken, or of a version or kind that is not known; this is answered.
    Broken(Vec<u8>),
    /// It can be read, and is nothing that is answered for anybody; this is answered.
    Refused(Vec<u8>),
}

impl Query {
    /// Reads a message.
    pub(crate) fn parse(bytes: &[u8], token: &Token) -> Result<Self, Unreadable> {
        let message = Message::from_octets(bytes).map_err(|_| Unreadable::Silent)?;
        let header = message.header();
        if header.qr() {
            return Err(Unreadable::Silent);
        }
        let bare = |rcode: Rcode| Unreadable::Broken(bare_error(&message, rcode));
        if header.opcode() != Opcode::QUERY {
            return Err(bare(Rcode::NOTIMP));
        }
        let question = message.sole_question().map_err(|_| bare(Rcode::FORMERR))?;
        // Nothing comes before a question that a pointer could be for (RFC 1035 §4.1.4), but the header: such a name is longer
        // in an answer than it is here, and somebody else may be made to receive it.
        if question.qname().is_compressed() {
            return Err(bare(Rcode::FORMERR));
        }
        let mut query = Self {
            id: header.id(),
            name: question.qname().to_name(),
            rtype: question.qtype(),
            class: question.qclass(),
            recursion_desired: header.rd(),
            authentic_data: header.ad(),
            checking_disabled: header.cd(),
            edns: None,
            own: false,
        };
        let additional = message.additional().map_err(|_| bare(Rcode::FORMERR))?;
        if additional.into_iter().any(|record| record.is_err()) {
            return Err(bare(Rcode::FORMERR));
        }
        if let Some(opt) = message.opt() {
            query.edns = Some(Edns { size: opt.udp_payload_size(), dnssec_ok: opt.dnssec_ok() });
            query.own = opt.opt().iter::<UnknownOptData<_>>().flatten().any(|option| {
                option.code() == OptionCode::from_int(OWN_OPTION) && option.as_slice() == token
            });
            if opt.version() != 0 {
                let builder = query.begin(Rcode::NOERROR, false).additional();
                return Err(Unreadable::Broken(query.finish(builder, OptRcode::BADVERS)));
            }
        }
        let transfer = matches!(query.rtype, Rtype::AXFR | Rtype::IXFR);
        if query.class != Class::IN || transfer {
            return Err(Unreadable::Refused(query.error(Rcode::REFUSED)));
        }
        Ok(query)
    }

    /// The labels of the name, without the root.
    pub(crate) fn labels(&self) -> Vec<&[u8]> {
        self.name.iter().filter(|label| !label.is_root()).map(|label| label.as_slice()).collect()
    }

    /// What is asked for, in the core's terms.
    pub(crate) fn kind(&self) -> Kind {
        match self.rtype {
            Rtype::A | Rtype::ANY => Kind::A,
            Rtype::AAAA => Kind::Aaaa,
            Rtype::SRV => Kind::Srv,
            Rtype::PTR => Kind::Ptr,
            _ => Kind::Other,
        }
    }

    /// Everything that the answer of a resolver depends on.
    pub(crate) fn key(&self) -> Vec<u8> {
        let mut key = self.name.as_slice().to_ascii_lowercase();
        key.extend(self.rtype.to_int().to_be_bytes());
        let dnssec_ok = self.edns.is_some_and(|edns| edns.dnssec_ok);
        let flags = [self.recursion_desired, self.authentic_data, self.checking_disabled, dnssec_ok];
        key.push(flags.iter().fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
        key
    }

    /// An answer without any records.
    pub(crate) fn error(&self, rcode: Rcode) -> Vec<u8> {
        self.finish(self.begin(rcode, false).additional(), rcode.into())
    }

    /// The mesh's answer. `turn` says which of several addresses comes first: many clients take that one.
    pub(crate) fn answer(&self, answer: &Answer, turn: usize, way: Way) -> Vec<u8> {
        let rcode = match answer {
            Answer::NoName(_) => Rcode::NXDOMAIN,
            Answer::Unsure | Answer::Ask(_) | Answer::Upstream => return self.error(Rcode::SERVFAIL),
            Answer::Addresses(_) | Answer::Places(_) | Answer::Name(_) | Answer::NoData(_) => Rcode::NOERROR,
        };
        // What is only there to spare a second question goes first.
        for with_addresses in [true, false] {
            let composed = self.filled(rcode, answer, turn, with_addresses);
            if let Some(composed) = composed.filter(|composed| composed.len() <= self.size_max(way)) {
                return composed;
            }
        }
        self.truncated(rcode)
    }

    /// What a resolver said, as the answer to this question. `age` is how long ago it said so; `None`: it has ended, and is given
    /// for want of a newer one.
    pub(crate) fn relay(&self, reply: &Reply, age: Option<Duration>, way: Way) -> Vec<u8> {
        let mut question = self.begin(reply.rcode, false);
        let header = question.header_mut();
        header.set_ad(reply.authentic && self.wants_ad());
        let mut out = question.finish().into_target();
        let start = out.len();
        out.extend_from_slice(&reply.tail);
        for at in &reply.ttls {
            let Some(field) =
                out.get_mut(start + usize::from(*at)..).and_then(|rest| rest.first_chunk_mut::<4>())
            else {
                continue;
            };
            let ttl = match age {
                Some(age) => {
                    let said = u64::from(u32::from_be_bytes(*field)).min(LIFETIME_MAX.as_secs());
                    said.saturating_sub(age.as_secs())
                }
                None => STALE_PAUSE.as_secs(),
            };
            *field = u32::try_from(ttl).unwrap_or(u32::MAX).to_be_bytes();
        }
        let mut counts = reply.counts;
        if let Some(opt) = self.opt() {
            out.extend_from_slice(&opt);
            counts[2] = counts[2].saturating_add(1);
        }
        // The counts of answers, authorities and additional records.
        for (place, byte) in out.iter_mut().skip(6).zip(counts.into_iter().flat_map(u16::to_be_bytes)) {
            *place = byte;
        }
        if out.len() <= self.size_max(way) { out } else { self.truncated(reply.rcode) }
    }

    /// The same question for a resolver.
    pub(crate) fn forward(&self, id: u16, token: &Token, edns: bool) -> Vec<u8> {
        let mut question = MessageBuilder::new_vec().question();
        let header = question.header_mut();
        header.set_id(id);
        header.set_rd(self.recursion_desired);
        header.set_ad(self.authentic_data);
        header.set_cd(self.checking_disabled);
        // Writing to a vector fails only when it is longer than a message can be; a question is not.
        let _ = question.push((&self.name, self.rtype, Class::IN));
        let mut additional = question.additional();
        if edns {
            let _ = additional.opt(|opt| {
                opt.set_udp_payload_size(DATAGRAM_BYTES_MAX);
                opt.set_dnssec_ok(self.edns.is_some_and(|edns| edns.dnssec_ok));
                match UnknownOptData::new(OptionCode::from_int(OWN_OPTION), token) {
                    Ok(own) => opt.push(&own),
                    Err(_) => Ok(()),
                }
            });
        }
        additional.finish()
    }

    /// The largest answer that the client can take.
    fn size_max(&self, way: Way) -> usize {
        match (way, self.edns) {
            (Way::Tcp, _) => MESSAGE_BYTES_MAX,
            (Way::Udp, None) => PLAIN_DATAGRAM_BYTES_MAX.into(),
            (Way::Udp, Some(edns)) => edns.size.clamp(PLAIN_DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MAX).into(),
        }
    }

    /// RFC 6840 §5.8: who asks for neither is not told.
    fn wants_ad(&self) -> bool {
        self.authentic_data || self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Nothing but the word that there is more: the client asks again over TCP.
    fn truncated(&self, rcode: Rcode) -> Vec<u8> {
        let mut short = self.begin(rcode, false);
        short.header_mut().set_tc(true);
        self.finish(short.additional(), rcode.into())
    }

    fn filled(&self, rcode: Rcode, answer: &Answer, turn: usize, with_addresses: bool) -> Option<Vec<u8>> {
        let mut builder = self.begin(rcode, true);
        let ttl = seconds(TTL);
        match answer {
            Answer::Addresses(addresses) => {
                for address in turned(addresses, turn) {
                    match address {
                        IpAddr::V4(ip) => builder.push((&self.name, ttl, A::new(*ip))).ok()?,
                        IpAddr::V6(ip) => builder.push((&self.name, ttl, Aaaa::new(*ip))).ok()?,
                    }
                }
            }
            Answer::Places(places) => {
                for place in turned(places, turn) {
                    let data = Srv::new(0, place.weight, place.port, host(&place.name)?);
                    builder.push((&self.name, ttl, data)).ok()?;
                }
            }
            Answer::Name(name) => builder.push((&self.name, ttl, Ptr::new(host(name)?))).ok()?,
            Answer::NoData(_) | Answer::NoName(_) | Answer::Upstream | Answer::Ask(_) | Answer::Unsure => {}
        }
        let mut builder = builder.authority();
        if let Answer::NoData(apex) | Answer::NoName(apex) = answer {
            let skipped = self.name.label_count().checked_sub(apex + 1)?;
            let zone = self.name.iter_suffixes().nth(skipped)?;
            builder.push((zone, seconds(NEGATIVE_TTL), authority()?)).ok()?;
        }
        let mut builder = builder.additional();
        if let Answer::Places(places) = answer
            && with_addresses
        {
            for Place { name, vip, .. } in turned(places, turn) {
                let name = host(name)?;
                if let Some(v4) = vip.v4 {
                    builder.push((&name, ttl, A::new(v4))).ok()?;
                }
                builder.push((&name, ttl, Aaaa::new(vip.v6))).ok()?;
            }
        }
        Some(self.finish(builder, rcode.into()))
    }

    /// An answer with its header and question.
    fn begin(&self, rcode: Rcode, authoritative: bool) -> AnswerBuilder<Target> {
        let target = StaticCompressor::new(Vec::with_capacity(PLAIN_DATAGRAM_BYTES_MAX.into()));
        // Writing to a vector does not fail.
        let builder = MessageBuilder::from_target(target).unwrap_or_else(|never| match never {});
        let mut question = builder.question();
        let header = question.header_mut();
        header.set_id(self.id);
        header.set_qr(true);
        header.set_aa(authoritative);
        header.set_rd(self.recursion_desired);
        header.set_ra(true);
        header.set_cd(self.checking_disabled);
        header.set_rcode(rcode);
        // A question that was read fits a message.
        let _ = question.push((&self.name, self.rtype, self.class));
        question.answer()
    }

    fn finish(&self, builder: AdditionalBuilder<Target>, rcode: OptRcode) -> Vec<u8> {
        let mut builder = builder;
        if let Some(edns) = self.edns {
            let _ = builder.opt(|opt| {
                edns.answer(opt);
                opt.set_rcode(rcode);
                Ok(())
            });
        }
        builder.finish().into_target()
    }

    /// The record that says what we can take, for a client that did so.
    fn opt(&self) -> Option<Vec<u8>> {
        let edns = self.edns?;
        let mut builder = MessageBuilder::new_vec().additional();
        let written = builder.opt(|opt| {
            edns.answer(opt);
            Ok(())
        });
        written.ok()?;
        Some(builder.finish().split_off(HEADER_BYTES))
    }
}

impl Edns {
    fn answer<T: Composer>(self, opt: &mut OptBuilder<'_, T>) {
        opt.set_udp_payload_size(DATAGRAM_BYTES_MAX);
        opt.set_dnssec_ok(self.dnssec_ok);
    }
}

/// What a resolver answered: everything behind the question as it came, without what belongs to one hop.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) rcode: Rcode,
    /// The resolver has verified it.
    authentic: bool,
    /// Answers, authorities, additional records.
    counts: [u16; 3],
    /// Names in it may refer to the question, which is as long in every message with this name.
    tail: Vec<u8>,
    /// Where in `tail` the life of each record stands.
    ttls: Vec<u16>,
    /// How long it may be remembered; zero: not at all.
    pub(crate) lifetime: Duration,
}

/// Why bytes that came are not the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoReply {
    /// They answer something else, or are no message: perhaps not from the resolver at all.
    Foreign,
    /// They answer the question, and are broken.
    Broken,
    /// There is more than fits a datagram.
    Truncated,
}

impl Reply {
    /// Reads the answer to `query`, which was sent as `id`.
    pub(crate) fn parse(bytes: &[u8], query: &Query, id: u16) -> Result<Self, NoReply> {
        let message = Message::from_octets(bytes).map_err(|_| NoReply::Foreign)?;
        let header = message.header();
        let question = message.sole_question().map_err(|_| NoReply::Foreign)?;
        let ours = header.qr()
            && header.id() == id
            && header.opcode() == Opcode::QUERY
            && question.qname().name_eq(&query.name)
            && question.qtype() == query.rtype
            && question.qclass() == Class::IN;
        if !ours {
            return Err(NoReply::Foreign);
        }
        if header.tc() {
            return Err(NoReply::Truncated);
        }
        let start = HEADER_BYTES + query.name.len() + 4;
        let mut reply = Self {
            rcode: header.rcode(),
            authentic: header.ad(),
            counts: [0; 3],
            tail: Vec::new(),
            ttls: Vec::new(),
            lifetime: LIFETIME_MAX,
        };
        let mut section = message.answer().map_err(|_| NoReply::Broken)?;
        let mut authority: Option<Duration> = None;
        let mut answered = false;
        let mut end = section.pos();
        let mut owners = Vec::new();
        // The name could have been written in another length only with a pointer, of which a question has no need.
        if end != start {
            return Err(NoReply::Broken);
        }
        'sections: for at in 0..3 {
            while let Some(record) = section.next() {
                let record = record.map_err(|_| NoReply::Broken)?;
                let after = section.pos();
                if at == 2 && record.rtype() == Rtype::OPT {
                    if record.ttl().as_secs() >> 24 != 0 {
                        return Err(NoReply::Broken);
                    }
                    // It is for one hop. What stands behind it would have to be written anew, and is not needed.
                    break 'sections;
                }
                let said = Duration::from_secs(record.ttl().as_secs().into());
                reply.lifetime = reply.lifetime.min(said);
                answered |= at == 0 && record.rtype() == query.rtype;
                if at == 1
                    && let Ok(Some(soa)) = record.to_record::<Soa<_>>()
                {
                    let minimum: Soa<ParsedName<&[u8]>> = soa.into_data();
                    authority = Some(said.min(Duration::from_secs(minimum.minimum().as_secs().into())));
                }
                // Ten bytes of every record lie between its name and its data: the life begins with the fifth of them.
                let ttl =
                    after.checked_sub(usize::from(record.rdlen()) + 6 + start).ok_or(NoReply::Broken)?;
                reply.ttls.push(u16::try_from(ttl).map_err(|_| NoReply::Broken)?);
                reply.counts[at] += 1;
                owners.push(end);
                end = after;
            }
            match section.next_section() {
                // Behind the records of one section begin those of the next.
                Ok(Some(next)) => section = next,
                Ok(None) => break,
                Err(_) => return Err(NoReply::Broken),
            }
        }
        // RFC 2308 §5: without an authority nobody says how long there will be nothing.
        let nothing = reply.rcode == Rcode::NXDOMAIN || !(answered || query.rtype == Rtype::ANY);
        if nothing {
            let life = authority.unwrap_or_default().min(NEGATIVE_LIFETIME_MAX);
            reply.lifetime = reply.lifetime.min(life);
        }
        if !matches!(reply.rcode, Rcode::NOERROR | Rcode::NXDOMAIN) {
            reply.lifetime = Duration::ZERO;
        }
        reply.tail = bytes.get(start..end).ok_or(NoReply::Broken)?.to_vec();
        if reply.names_stay(bytes, start, &owners) { Ok(reply) } else { Err(NoReply::Broken) }
    }

    /// True when no name is written with the help of what is different in each relayed message: the header and the lives.
    fn names_stay(&self, bytes: &[u8], start: usize, owners: &[usize]) -> bool {
        /// No label begins like this (RFC 1035 §4.1.4).
        const NO_LABEL: u8 = 0x80;
        // What stands behind the end is not relayed either.
        let kept = bytes.get(..start + self.tail.len()).unwrap_or(bytes);
        let mut without = kept.to_vec();
        let lives = self.ttls.iter().map(|at| (start + usize::from(*at), 4));
        for (at, length) in lives.chain([(0, HEADER_BYTES)]) {
            if let Some(part) = without.get_mut(at..at + length) {
                part.fill(NO_LABEL);
            }
        }
        let name = |bytes, at| {
            let mut parser = Parser::from_ref(bytes);
            parser.seek(at).ok()?;
            ParsedName::parse(&mut parser).ok()
        };
        owners.iter().all(|at| match (name(kept, *at), name(without.as_slice(), *at)) {
            (Some(name), Some(same)) => name.name_eq(&same),
            _ => false,
        })
    }

    /// That nobody answered, remembered for `lifetime`.
    pub(crate) const fn failure(lifetime: Duration) -> Self {
        Self {
            rcode: Rcode::SERVFAIL,
            authentic: false,
            counts: [0; 3],
            tail: Vec::new(),
            ttls: Vec::new(),
            lifetime,
        }
    }

    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.tail.len() + self.ttls.len() * 2
    }
}

type Target = StaticCompressor<Vec<u8>>;

/// An answer to a message that could not be read to its end.
fn bare_error(message: &Message<&[u8]>, rcode: Rcode) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    let (asked, header) = (message.header(), builder.header_mut());
    header.set_id(asked.id());
    header.set_qr(true);
    header.set_opcode(asked.opcode());
    header.set_rd(asked.rd());
    header.set_rcode(rcode);
    builder.finish()
}

/// Who is responsible for names of the mesh, and how long others may remember that there is none (RFC 2308 §3).
fn authority() -> Option<Soa<Name<Vec<u8>>>> {
    // Nobody takes copies of the zone: serial and intervals have no meaning.
    let unused = Ttl::from_secs(60);
    Some(Soa::new(
        host("dns.mesh")?,
        host("nobody.mesh")?,
        Serial(1),
        unused,
        unused,
        unused,
        seconds(NEGATIVE_TTL),
    ))
}

/// A name of ours.
fn host(text: &str) -> Option<Name<Vec<u8>>> {
    Name::vec_from_str(text).ok()
}

/// At most [`RECORDS_MAX`] items, beginning with another one at each turn.
fn turned<T>(items: &[T], turn: usize) -> impl Iterator<Item = &T> {
    let first = turn.checked_rem(items.len()).unwrap_or_default();
    items.iter().cycle().skip(first).take(items.len().min(RECORDS_MAX))
}

fn seconds(life: Duration) -> Ttl {
    Ttl::from_secs(u32::try_from(life.as_secs()).unwrap_or(u32::MAX))
}
