//! The handshake against `snow`, another implementation of Noise, and against forgers.

use std::time::Duration;

use snow::{Builder, HandshakeState, TransportState};
use wire::message::{Cipher, DATA_HEADER_LEN, DataHeader};

use super::*;
use crate::keypair::{Ciphers, Keypair, Role};
use crate::time::Instant;

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const INITIATOR: [u8; 32] = [0x11; 32];
const RESPONDER: [u8; 32] = [0x22; 32];
const EPHEMERAL_INITIATOR: [u8; 32] = [0x33; 32];
const EPHEMERAL_RESPONDER: [u8; 32] = [0x44; 32];

fn identity(octets: [u8; 32]) -> Identity {
    Identity::new(PrivateKey::from_bytes(octets))
}

fn timestamp() -> Tai64n {
    Tai64n::from_unix(Duration::from_secs(1_700_000_000)).marked()
}

/// The two presharing cases: none and some.
fn psks() -> [PresharedKey; 2] {
    [PresharedKey::default(), PresharedKey::from_bytes([0x55; 32])]
}

/// Both parties with their static keys.
struct Parties {
    initiator: Identity,
    responder: Identity,
}

fn parties() -> Parties {
    Parties { initiator: identity(INITIATOR), responder: identity(RESPONDER) }
}

impl Parties {
    fn initiate(&self) -> (Initiation, Initiating) {
        let remote = self.responder.public();
        let shared = self.initiator.shared(&remote).unwrap();
        let ephemeral = PrivateKey::from_bytes(EPHEMERAL_INITIATOR);
        initiate(&self.initiator, &remote, &shared, ephemeral, 7, timestamp()).unwrap()
    }

    fn authenticate(&self, message: &Initiation) -> Option<(Tai64n, Responding)> {
        let introduction = open_initiation(&self.responder, message)?;
        introduction.authenticate(&self.responder.shared(&self.initiator.public())?)
    }

    fn respond(&self, message: &Initiation, psk: &PresharedKey) -> (Response, SessionKeys) {
        let (_, responding) = self.authenticate(message).unwrap();
        responding.respond(PrivateKey::from_bytes(EPHEMERAL_RESPONDER), psk, 9).unwrap()
    }
}

fn snow<'a>(secret: &'a [u8; 32], psk: &'a PresharedKey, ephemeral: &'a [u8; 32]) -> Builder<'a> {
    Builder::new(PATTERN.parse().unwrap())
        .prologue(PROLOGUE)
        .unwrap()
        .local_private_key(secret)
        .unwrap()
        .psk(2, psk.as_bytes())
        .unwrap()
        .fixed_ephemeral_key_for_testing_only(ephemeral)
}

fn write(state: &mut HandshakeState, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 200];
    let len = state.write_message(payload, &mut message).unwrap();
    message.truncate(len);
    message
}

/// The part of an initiation that is Noise.
fn noise_of_initiation(message: &Initiation) -> Vec<u8> {
    message.emit()[8..116].to_vec()
}

/// The part of a response that is Noise.
fn noise_of_response(message: &Response) -> Vec<u8> {
    message.emit()[12..60].to_vec()
}

fn keypair(keys: SessionKeys, role: Role) -> Keypair {
    Keypair::new(keys, 1, 2, role, Instant::ZERO, Ciphers { chacha: true, aes: true })
}

/// Sends 32 octets each way between snow's session and ours.
fn assert_same_session(mut theirs: TransportState, ours: &Keypair) {
    let (plaintext, mut sealed, mut opened) = ([0xab; 32], [0; 64], [0; 64]);
    let len = ours.seal(0, &plaintext, 0, &mut sealed).unwrap();
    let len = theirs.read_message(&sealed[DATA_HEADER_LEN..len], &mut opened).unwrap();
    assert_eq!(opened[..len], plaintext);
    let len = theirs.write_message(&plaintext, &mut sealed[DATA_HEADER_LEN..]).unwrap();
    assert_eq!(len, 48);
    let header = DataHeader { cipher: Cipher::ChaCha20Poly1305, receiver: 1, counter: 0 };
    let range = ours.open(&header, &mut sealed).unwrap();
    assert_eq!(sealed[range], plaintext);
}

#[test]
fn the_initiator_speaks_what_snow_speaks() {
    for psk in psks() {
        let parties = parties();
        let (initiation, initiating) = parties.initiate();
        let mut theirs = snow(&RESPONDER, &psk, &EPHEMERAL_RESPONDER).build_responder().unwrap();
        let mut payload = [0; 100];
        let len = theirs.read_message(&noise_of_initiation(&initiation), &mut payload).unwrap();
        assert_eq!(payload[..len], timestamp().as_octets()[..]);
        assert_eq!(theirs.get_remote_static().unwrap(), parties.initiator.public().as_bytes());

        let answer = write(&mut theirs, &[]);
        let response = Response {
            sender: 9,
            receiver: 7,
            ephemeral: answer[..32].try_into().unwrap(),
            encrypted_nothing: answer[32..].try_into().unwrap(),
            mac1: [0; 16],
            mac2: [0; 16],
        };
        let keys = initiating.complete(&parties.initiator, &psk, &response).unwrap();
        assert_same_session(theirs.into_transport_mode().unwrap(), &keypair(keys, Role::Initiator));
    }
}

#[test]
fn the_responder_speaks_what_snow_speaks() {
    for psk in psks() {
        let parties = parties();
        let remote = parties.responder.public();
        let mut theirs = snow(&INITIATOR, &psk, &EPHEMERAL_INITIATOR)
            .remote_public_key(remote.as_bytes())
            .unwrap()
            .build_initiator()
            .unwrap();
        let asked = write(&mut theirs, timestamp().as_octets());
        let initiation = Initiation {
            sender: 7,
            ephemeral: asked[..32].try_into().unwrap(),
            encrypted_static: asked[32..80].try_into().unwrap(),
            encrypted_timestamp: asked[80..].try_into().unwrap(),
            mac1: [0; 16],
            mac2: [0; 16],
        };
        let introduction = open_initiation(&parties.responder, &initiation).unwrap();
        assert_eq!(introduction.public_key(), parties.initiator.public());
        let shared = parties.responder.shared(&introduction.public_key()).unwrap();
        let (when, responding) = introduction.authenticate(&shared).unwrap();
        assert_eq!(when, timestamp());

        let ephemeral = PrivateKey::from_bytes(EPHEMERAL_RESPONDER);
        let (response, keys) = responding.respond(ephemeral, &psk, 9).unwrap();
        assert_eq!((response.sender, response.receiver), (9, 7));
        theirs.read_message(&noise_of_response(&response), &mut [0; 100]).unwrap();
        assert_same_session(theirs.into_transport_mode().unwrap(), &keypair(keys, Role::Responder));
    }
}

#[test]
fn both_messages_are_those_of_snow_octet_for_octet() {
    for psk in psks() {
        let parties = parties();
        let remote = parties.responder.public();
        let mut initiator = snow(&INITIATOR, &psk, &EPHEMERAL_INITIATOR)
            .remote_public_key(remote.as_bytes())
            .unwrap()
            .build_initiator()
            .unwrap();
        let mut responder = snow(&RESPONDER, &psk, &EPHEMERAL_RESPONDER).build_responder().unwrap();
        let asked = write(&mut initiator, timestamp().as_octets());
        responder.read_message(&asked, &mut [0; 100]).unwrap();

        let (initiation, _) = parties.initiate();
        assert_eq!(noise_of_initiation(&initiation), asked);
        let (response, _) = parties.respond(&initiation, &psk);
        assert_eq!(noise_of_response(&response), write(&mut responder, &[]));
    }
}

#[test]
fn both_sides_have_the_same_keys_for_each_cipher_and_direction() {
    let parties = parties();
    let (initiation, initiating) = parties.initiate();
    let (response, theirs) = parties.respond(&initiation, &psks()[1]);
    let ours = initiating.complete(&parties.initiator, &psks()[1], &response).unwrap();
    assert_eq!((ours.send.chacha, ours.send.aes), (theirs.receive.chacha, theirs.receive.aes));
    assert_eq!((ours.receive.chacha, ours.receive.aes), (theirs.send.chacha, theirs.send.aes));
    let all = [ours.send.chacha, ours.send.aes, ours.receive.chacha, ours.receive.aes];
    for (place, key) in all.iter().enumerate() {
        assert!(!all[..place].contains(key));
    }
}

#[test]
fn every_flipped_bit_of_an_initiation_is_refused() {
    let parties = parties();
    let (initiation, _) = parties.initiate();
    assert!(parties.authenticate(&initiation).is_some());
    for bit in 8 * 8..116 * 8 {
        let mut octets = initiation.emit();
        octets[bit / 8] ^= 1 << (bit % 8);
        let forged = Initiation::parse(&octets).unwrap();
        assert!(parties.authenticate(&forged).is_none(), "bit {bit}");
    }
}

#[test]
fn every_flipped_bit_of_a_response_is_refused_and_the_true_one_still_taken() {
    let (parties, psk) = (parties(), &psks()[1]);
    let (initiation, initiating) = parties.initiate();
    let (response, _) = parties.respond(&initiation, psk);
    for bit in 8 * 8..60 * 8 {
        let mut octets = response.emit();
        octets[bit / 8] ^= 1 << (bit % 8);
        let forged = Response::parse(&octets).unwrap();
        assert!(initiating.complete(&parties.initiator, psk, &forged).is_none(), "bit {bit}");
    }
    assert!(initiating.complete(&parties.initiator, psk, &response).is_some());
}

#[test]
fn wrong_keys_are_refused() {
    let (parties, psk) = (parties(), &psks()[1]);
    let (initiation, initiating) = parties.initiate();
    assert!(open_initiation(&identity([0x66; 32]), &initiation).is_none());
    let (response, _) = parties.respond(&initiation, psk);
    assert!(initiating.complete(&parties.initiator, &psks()[0], &response).is_none());
    assert!(initiating.complete(&identity([0x66; 32]), psk, &response).is_none());
}

#[test]
fn whoever_knows_only_public_keys_is_not_authenticated() {
    let parties = parties();
    let forger = identity([0x66; 32]);
    let (victim, target) = (parties.initiator.public(), parties.responder.public());
    // The forger puts the victim's public key where its own belongs.
    let ephemeral = identity(EPHEMERAL_INITIATOR).secret;
    let mut transcript = Transcript::new(&target);
    transcript.mix_ephemeral(&ephemeral.public());
    transcript.mix_shared(&ephemeral.agree(&target).unwrap());
    let encrypted_static = transcript.seal(victim.as_bytes()).unwrap();
    transcript.mix_shared(&forger.shared(&target).unwrap().shared);
    let encrypted_timestamp = transcript.seal(timestamp().as_octets()).unwrap();
    let ephemeral = *ephemeral.public().as_bytes();
    let (mac1, mac2) = ([0; 16], [0; 16]);
    let forged =
        Initiation { sender: 7, ephemeral, encrypted_static, encrypted_timestamp, mac1, mac2 };

    let introduction = open_initiation(&parties.responder, &forged).unwrap();
    assert_eq!(introduction.public_key(), victim);
    let shared = parties.responder.shared(&victim).unwrap();
    assert!(introduction.authenticate(&shared).is_none());
}

#[test]
fn what_is_shared_with_another_peer_does_not_authenticate() {
    let parties = parties();
    let (initiation, _) = parties.initiate();
    let other = identity([0x66; 32]).public();
    let shared = parties.responder.shared(&other).unwrap();
    let introduction = open_initiation(&parties.responder, &initiation).unwrap();
    assert!(introduction.authenticate(&shared).is_none());
    let ephemeral = PrivateKey::from_bytes(EPHEMERAL_INITIATOR);
    let remote = parties.responder.public();
    let initiated = initiate(&parties.initiator, &remote, &shared, ephemeral, 7, timestamp());
    assert!(initiated.is_none());
}

#[test]
fn degenerate_public_keys_are_refused() {
    // Points of small order, and two that are not reduced (RFC 7748, section 7;
    // https://cr.yp.to/ecdh.html#validate).
    let mut points = [[0; 32], [0; 32], [0xff; 32], [0xff; 32]];
    points[1][0] = 1;
    (points[2][0], points[2][31]) = (0xec, 0x7f);
    (points[3][0], points[3][31]) = (0xee, 0x7f);
    let order_8 = [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ];
    let parties = parties();
    let (initiation, initiating) = parties.initiate();
    let (response, _) = parties.respond(&initiation, &psks()[0]);
    for point in points.into_iter().chain([order_8]) {
        assert!(parties.initiator.shared(&point.into()).is_none());
        let forged = Initiation { ephemeral: point, ..initiation };
        assert!(open_initiation(&parties.responder, &forged).is_none());
        let forged = Response { ephemeral: point, ..response };
        assert!(initiating.complete(&parties.initiator, &psks()[0], &forged).is_none());
    }
}
