//! The record layer of TLS 1.3 (RFC 8446 §5): each record is sealed from where its content lies into where it is sent
//! from, and opened where it was received. Key updates are answered, and made in time, by rustls' secrets.

use core::fmt;
use core::ops::Range;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{AlertDescription, ConnectionTrafficSecrets, Error, ExtractedSecrets, ProtocolVersion};

/// Content of one record at most, in bytes (RFC 8446 §5.1).
pub const RECORD_PLAIN_MAX: usize = 1 << 14;
/// What a record has besides its content as we seal it, in bytes: its head, the type of its content, the tag.
pub const RECORD_OVERHEAD: usize = HEAD_BYTES + 1 + TAG_BYTES;
/// A whole record as a peer may seal it, in bytes: it may be padded (RFC 8446 §5.2).
pub const RECORD_BYTES_MAX: usize = HEAD_BYTES + SEALED_MAX;

/// Records under one key. AES-GCM keeps its promises for 2^24.5 full ones (RFC 8446 §5.5); other ciphers do for more.
const RECORDS_PER_KEY_MAX: u64 = 1 << 23;

/// Records in a row without any content for us: each costs us more than its sender. rustls' limit, too.
const EMPTY_RECORDS_MAX: u8 = 32;

const HEAD_BYTES: usize = 5;
const TAG_BYTES: usize = 16;
/// RFC 8446 §5.2.
const SEALED_MAX: usize = RECORD_PLAIN_MAX + 256;
/// Sealed records say that they are application data of TLS 1.2, whatever they are.
const OUTER_TYPE: u8 = 23;
const OUTER_VERSION: [u8; 2] = [3, 3];

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// Both directions of a session whose handshake is over.
#[derive(Debug)]
pub struct Records {
    sealing: Direction,
    opening: Direction,
    keys: Keys,
    /// The peer wants us to change our key before we say anything else.
    update_wanted: bool,
    /// The peer has said farewell: nothing that follows has a meaning.
    ended: bool,
    /// Records without content since the last one with some.
    empty: u8,
    records_per_key: u64,
}

/// What was found at the front of received bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// A record that is not whole yet.
    Incomplete,
    /// A record of so many bytes, and what was in it; nothing, if it was between the two ends of the session.
    Record(usize, &'a [u8]),
    /// The peer's farewell. What follows it has no meaning.
    End,
}

/// What makes new keys when one end wants them.
pub(super) enum Keys {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

/// One direction.
struct Direction {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    /// The next record's, from 0 on with each key.
    number: u64,
}

impl Records {
    pub(super) fn new(secrets: ExtractedSecrets, keys: Keys) -> Result<Self, Error> {
        if keys.version() != ProtocolVersion::TLSv1_3 {
            return Err(Error::General("a session between proxies is not of TLS 1.3".into()));
        }
        Ok(Self {
            sealing: Direction::new(secrets.tx)?,
            opening: Direction::new(secrets.rx)?,
            keys,
            update_wanted: false,
            ended: false,
            empty: 0,
            records_per_key: RECORDS_PER_KEY_MAX,
        })
    }

    /// Makes a key end sooner, for tests.
    #[must_use]
    pub const fn with_records_per_key(mut self, most: u64) -> Self {
        self.records_per_key = most;
        self
    }

    /// True when there is something to send without any content.
    pub const fn has_news(&self) -> bool {
        self.update_wanted
    }

    /// Seals as much of `plain` as there is room for in `out`, one record after the other; how much of each was used.
    ///
    /// # Errors
    /// The session cannot go on.
    pub fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<(usize, usize), Error> {
        let (mut taken, mut written) = (0, 0);
        loop {
            if self.update_wanted || self.sealing.number >= self.records_per_key {
                let Some(bytes) = self.update_key(out.get_mut(written..).unwrap_or(&mut []))? else {
                    return Ok((taken, written));
                };
                written += bytes;
            }
            let rest = plain.get(taken..).unwrap_or(&[]);
            let place = out.get_mut(written..).unwrap_or(&mut []);
            let room = place.len().saturating_sub(RECORD_OVERHEAD).min(RECORD_PLAIN_MAX);
            let content = rest.get(..room).unwrap_or(rest);
            if content.is_empty() {
                return Ok((taken, written));
            }
            written += self.sealing.seal(APPLICATION_DATA, content, place)?;
            taken += content.len();
        }
    }

    /// Seals our farewell; how many bytes of `out` it takes.
    ///
    /// # Errors
    /// There is no room.
    pub fn seal_end(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        self.sealing.seal(ALERT, &[WARNING, AlertDescription::CloseNotify.into()], out)
    }

    /// Seals what is wrong with the peer's records.
    ///
    /// # Errors
    /// There is no room.
    pub fn seal_alert(&mut self, alert: AlertDescription, out: &mut [u8]) -> Result<usize, Error> {
        self.sealing.seal(ALERT, &[FATAL, alert.into()], out)
    }

    /// Opens the record at the front of `sealed`, where it lies.
    ///
    /// # Errors
    /// The peer has ended the session with an alert, or its bytes are not what they should be, perhaps because they were
    /// changed on the way. The session is over.
    pub fn open<'a>(&mut self, sealed: &'a mut [u8]) -> Result<Opened<'a>, Error> {
        if self.ended {
            return Ok(Opened::End);
        }
        let Some((head, rest)) = sealed.split_first_chunk_mut::<HEAD_BYTES>() else {
            return Ok(Opened::Incomplete);
        };
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if head[0] != OUTER_TYPE || [head[1], head[2]] != OUTER_VERSION || length > SEALED_MAX {
            return Err(broken("a record that is none of this session"));
        }
        let Some(content) = rest.get_mut(..length) else { return Ok(Opened::Incomplete) };
        let content = self.opening.open(*head, content)?;
        // Behind the content come its type and zeros (RFC 8446 §5.4).
        let Some(end) = content.iter().rposition(|byte| *byte != 0) else {
            return Err(broken("a record without a type"));
        };
        let (content, kind) = content.split_at(end);
        if content.len() > RECORD_PLAIN_MAX {
            return Err(broken("a record that is too long"));
        }
        let bytes = HEAD_BYTES + length;
        self.empty = match kind.first() {
            Some(&APPLICATION_DATA) if !content.is_empty() => 0,
            _ => self.empty + 1,
        };
        if self.empty > EMPTY_RECORDS_MAX {
            return Err(broken("too many records with nothing in them"));
        }
        match kind.first() {
            Some(&APPLICATION_DATA) => Ok(Opened::Record(bytes, content)),
            Some(&HANDSHAKE) => self.handle_handshake(content).map(|()| Opened::Record(bytes, &[])),
            Some(&ALERT) => match content {
                [_, alert] if AlertDescription::from(*alert) == AlertDescription::CloseNotify => {
                    self.ended = true;
                    Ok(Opened::End)
                }
                [_, alert] => Err(Error::AlertReceived((*alert).into())),
                _ => Err(broken("an alert that is none")),
            },
            _ => Err(broken("a record of an unknown type")),
        }
    }

    /// Takes what is said between the two ends of a session after its handshake (RFC 8446 §4.6).
    fn handle_handshake(&mut self, mut messages: &[u8]) -> Result<(), Error> {
        if messages.is_empty() {
            return Err(broken("a handshake record without a message"));
        }
        while let [kind, a, b, c, rest @ ..] = messages {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some((body, rest)) = rest.split_at_checked(length) else {
                return Err(broken("a message in parts"));
            };
            match (*kind, body) {
                // A key ends with its record, so nothing may follow in it.
                (KEY_UPDATE, [wanted @ (0 | 1)]) if rest.is_empty() => {
                    self.opening = Direction::new(self.keys.update_opening()?)?;
                    self.update_wanted |= *wanted == 1;
                }
                // Sessions are not resumed.
                (NEW_SESSION_TICKET, _) if matches!(self.keys, Keys::Client(_)) => {}
                _ => return Err(broken("a message that has no place in a session")),
            }
            messages = rest;
        }
        if messages.is_empty() { Ok(()) } else { Err(broken("a message in parts")) }
    }

    /// Says that our key changes, and changes it. `None`: there is no room to say so.
    fn update_key(&mut self, out: &mut [u8]) -> Result<Option<usize>, Error> {
        // The last byte: the peer need not change its own.
        const MESSAGE: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];
        if out.len() < MESSAGE.len() + RECORD_OVERHEAD {
            return Ok(None);
        }
        let bytes = self.sealing.seal(HANDSHAKE, &MESSAGE, out)?;
        self.sealing = Direction::new(self.keys.update_sealing()?)?;
        self.update_wanted = false;
        Ok(Some(bytes))
    }
}

impl Direction {
    fn new((number, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("a cipher that Leno does not know".into())),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| broken("a key of another length"))?;
        let iv = iv.as_ref().try_into().map_err(|_| broken("an initialization vector of another length"))?;
        Ok(Self { key: LessSafeKey::new(key), iv, number })
    }

    /// Writes one record to the front of `out`; how many bytes it has.
    fn seal(&mut self, kind: u8, content: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let bytes = content.len() + RECORD_OVERHEAD;
        let length = (bytes - HEAD_BYTES) as u16;
        let no_room = || Error::General("there is no room for a record".into());
        let (head, sealed) = out
            .get_mut(..bytes)
            .and_then(|record| record.split_first_chunk_mut::<HEAD_BYTES>())
            .ok_or_else(no_room)?;
        let [high, low] = length.to_be_bytes();
        *head = [OUTER_TYPE, OUTER_VERSION[0], OUTER_VERSION[1], high, low];
        let (sealed, tail) = sealed.split_at_mut(content.len());
        let nonce = self.next_nonce()?;
        self.key
            .seal_out_of_place_scatter(nonce, Aad::from(*head), content, sealed, &[kind], tail)
            .map_err(|_| Error::EncryptError)?;
        Ok(bytes)
    }

    /// Opens what follows a record's head; what was in it, its type and padding behind it.
    fn open<'a>(&mut self, head: [u8; HEAD_BYTES], sealed: &'a mut [u8]) -> Result<&'a [u8], Error> {
        let nonce = self.next_nonce()?;
        let opened = self.key.open_in_place(nonce, Aad::from(head), sealed);
        opened.map(|content| &*content).map_err(|_| Error::DecryptError)
    }

    /// RFC 8446 §5.3. No number is used twice: it only grows, and a key is replaced with its numbers.
    fn next_nonce(&mut self) -> Result<Nonce, Error> {
        const NUMBER: Range<usize> = NONCE_LEN - 8..NONCE_LEN;
        let mut nonce = self.iv;
        for (byte, number) in nonce[NUMBER].iter_mut().zip(self.number.to_be_bytes()) {
            *byte ^= number;
        }
        self.number = self.number.checked_add(1).ok_or_else(|| broken("too many records"))?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

impl Keys {
    fn version(&self) -> ProtocolVersion {
        match self {
            Self::Client(client) => client.protocol_version(),
            Self::Server(server) => server.protocol_version(),
        }
    }

    fn update_sealing(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Client(client) => client.update_tx_secret(),
            Self::Server(server) => server.update_tx_secret(),
        }
    }

    fn update_opening(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Client(client) => client.update_rx_secret(),
            Self::Server(server) => server.update_rx_secret(),
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client(_) => "Client",
            Self::Server(_) => "Server",
        })
    }
}

impl fmt::Debug for Direction {
    /// Without anything secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direction").field("number", &self.number).finish_non_exhaustive()
    }
}

#[cold]
fn broken(what: &str) -> Error {
    Error::General(format!("the peer sent {what}"))
}
