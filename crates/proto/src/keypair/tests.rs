//! Sealing, opening, and every limit.

use std::collections::HashSet;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;

const BOTH: Ciphers = Ciphers { chacha: true, aes: true };
const LOCAL: u32 = 0x0403_0201;
const REMOTE: u32 = 0x0807_0605;

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(1000 + seconds)
}

fn keys(send: u8, receive: u8) -> SessionKeys {
    let keys = |octet| CipherKeys { chacha: [octet; 32], aes: [octet + 1; 32] };
    SessionKeys { send: keys(send), receive: keys(receive) }
}

fn initiator() -> Keypair {
    Keypair::new(keys(10, 20), LOCAL, REMOTE, Role::Initiator, at(0), BOTH)
}

fn responder() -> Keypair {
    Keypair::new(keys(20, 10), REMOTE, LOCAL, Role::Responder, at(0), BOTH)
}

/// Both sides, after the initiator has heard that the responder opens AES-256-GCM if `cipher` is that.
fn pair(cipher: Cipher) -> (Keypair, Keypair) {
    let (initiator, responder) = (initiator(), responder());
    if cipher == Cipher::Aes256Gcm {
        initiator.set_features(Features::AES_256_GCM);
    }
    (initiator, responder)
}

fn seal(keypair: &Keypair, counter: u64, plaintext: &[u8], padding: usize) -> Vec<u8> {
    let mut out = vec![0xee; plaintext.len() + padding + DATA_OVERHEAD + 7];
    let len = keypair.seal(counter, plaintext, padding, &mut out).unwrap();
    assert_eq!(out.split_off(len), [0xee; 7]);
    out
}

fn open(keypair: &Keypair, datagram: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut datagram = datagram.to_vec();
    let header = DataHeader::parse(&datagram).map_err(|_| DropReason::NotAMessage)?;
    keypair.open(&header, &mut datagram).map(|plaintext| datagram[plaintext].to_vec())
}

const CIPHERS: [Cipher; 2] = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm];

#[test]
fn a_keepalive_is_that_of_wireguard() {
    let (initiator, _) = pair(Cipher::ChaCha20Poly1305);
    let message = seal(&initiator, 0x0102_0304, &[], 0);
    let header = [4, 0, 0, 0, 5, 6, 7, 8, 4, 3, 2, 1, 0, 0, 0, 0];
    assert_eq!(message[..16], header);
    // The tag of nothing, by sealing in place under the nonce of the whitepaper.
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[10; 32]).unwrap());
    let nonce = Nonce::assume_unique_for_key([0, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0]);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut []).unwrap();
    assert_eq!(message[16..], *tag.as_ref());
}

#[test]
fn the_header_says_which_cipher_sealed() {
    for (cipher, octet) in CIPHERS.into_iter().zip([0, 1]) {
        let (initiator, responder) = pair(cipher);
        assert_eq!(initiator.cipher(), cipher);
        let message = seal(&initiator, 0, b"abc", 13);
        assert_eq!(message[1], octet);
        assert_eq!(open(&responder, &message).unwrap(), b"abc\0\0\0\0\0\0\0\0\0\0\0\0\0");
    }
}

#[test]
fn every_flipped_bit_is_refused_and_the_true_message_still_taken() {
    for cipher in CIPHERS {
        let (initiator, responder) = pair(cipher);
        let message = seal(&initiator, 3, &[0x5a; 48], 0);
        // The receiver index is not covered: it leads to the keypair, or to another one.
        for bit in (8..16).chain(8 * 8..message.len() * 8) {
            let mut forged = message.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&responder, &forged).is_err(), "{cipher} bit {bit}");
        }
        assert_eq!(open(&responder, &message).unwrap(), [0x5a; 48]);
    }
}

#[test]
fn a_message_opens_once_and_only_at_its_receiver() {
    for cipher in CIPHERS {
        let (initiator, responder) = pair(cipher);
        let message = seal(&initiator, 0, b"0123456789abcdef", 0);
        assert_eq!(open(&initiator, &message), Err(DropReason::Undecryptable));
        assert!(open(&responder, &message).is_ok());
        assert_eq!(open(&responder, &message), Err(DropReason::Replayed));
        assert_eq!(responder.expected(), 1);
    }
}

#[test]
fn a_cut_off_message_is_refused() {
    let (initiator, responder) = pair(Cipher::ChaCha20Poly1305);
    let message = seal(&initiator, 0, &[1; 64], 0);
    for len in 0..message.len() {
        assert!(open(&responder, &message[..len]).is_err());
    }
    let header = DataHeader::parse(&message).unwrap();
    for len in 0..DATA_OVERHEAD {
        assert!(responder.open(&header, &mut message[..len].to_vec()).is_err());
    }
}

#[test]
fn what_does_not_fit_is_not_sealed() {
    let keypair = initiator();
    assert_eq!(keypair.seal(0, &[0; 10], 6, &mut [0; 47]), None);
    assert_eq!(keypair.seal(0, &[0; 10], 6, &mut [0; 48]), Some(48));
    assert_eq!(keypair.seal(1, &[0; 10], PADDING + 1, &mut [0; 100]), None);
}

#[test]
fn aes_is_used_once_the_peer_takes_it_and_the_configuration_allows_it() {
    let with = |ciphers| {
        let keypair = Keypair::new(keys(10, 20), LOCAL, REMOTE, Role::Initiator, at(0), ciphers);
        let before = (keypair.cipher(), keypair.may_carry_data());
        keypair.set_features(Features::AES_256_GCM.union(Features::UNCHECKED));
        assert!(keypair.features().contains(Features::UNCHECKED));
        (before, (keypair.cipher(), keypair.may_carry_data()))
    };
    let [chacha, aes] = CIPHERS;
    assert_eq!(with(BOTH), ((chacha, true), (aes, true)));
    assert_eq!(with(Ciphers { chacha: true, aes: false }), ((chacha, true), (chacha, true)));
    assert_eq!(with(Ciphers { chacha: false, aes: true }), ((chacha, false), (aes, true)));
}

#[test]
fn without_aes_such_a_message_is_refused() {
    let ciphers = Ciphers { chacha: true, aes: false };
    let responder = Keypair::new(keys(20, 10), REMOTE, LOCAL, Role::Responder, at(0), ciphers);
    let (initiator, _) = pair(Cipher::Aes256Gcm);
    let message = seal(&initiator, 0, &[0; 16], 0);
    assert_eq!(open(&responder, &message), Err(DropReason::Undecryptable));
}

#[test]
fn counters_are_reserved_in_order_and_end() {
    let keypair = initiator();
    assert_eq!(keypair.reserve(3), Some(0));
    assert_eq!(keypair.reserve(1), Some(3));
    assert_eq!(keypair.reserved(), 4);
    keypair.sent.0.counter.store(REJECT_AFTER_MESSAGES - 2, Relaxed);
    assert!(keypair.is_usable(at(0)));
    for _ in 0..10 {
        assert_eq!(keypair.reserve(3), None);
        assert_eq!(keypair.reserve(usize::MAX), None);
    }
    assert_eq!(keypair.reserve(2), Some(REJECT_AFTER_MESSAGES - 2));
    assert_eq!(keypair.reserve(1), None);
    assert!(!keypair.is_usable(at(0)) && keypair.is_alive(at(0)));
}

#[test]
fn threads_never_share_a_counter() {
    let keypair = initiator();
    let taken = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for messages in 1..=4 {
            let (keypair, taken) = (&keypair, &taken);
            scope.spawn(move || {
                let firsts: Vec<_> =
                    (0..2000).map(|_| keypair.reserve(messages).unwrap()).collect();
                let mut taken = taken.lock().unwrap();
                for counter in firsts.into_iter().flat_map(|first| first..first + messages as u64) {
                    assert!(taken.insert(counter));
                }
            });
        }
    });
    assert_eq!(taken.into_inner().unwrap().len(), 2000 * 10);
    assert_eq!(keypair.reserved(), 2000 * 10);
}

#[test]
fn the_last_counters_are_refused() {
    let (initiator, responder) = pair(Cipher::ChaCha20Poly1305);
    let message = seal(&initiator, REJECT_AFTER_MESSAGES, &[0; 16], 0);
    assert_eq!(open(&responder, &message), Err(DropReason::KeypairExpired));
}

#[test]
fn aes_seals_so_many_blocks_and_no_more() {
    let (initiator, responder) = pair(Cipher::Aes256Gcm);
    seal(&initiator, 0, &[0; 33], 15);
    assert_eq!(initiator.sent.0.blocks.load(Relaxed), 4, "three of data and the tag's");

    initiator.sent.0.blocks.store(REKEY_AFTER_BLOCKS, Relaxed);
    assert!(!initiator.needs_rekey(at(0)));
    seal(&initiator, 1, &[0; 16], 0);
    assert!(initiator.needs_rekey(at(0)) && initiator.is_usable(at(0)));

    initiator.sent.0.blocks.store(REJECT_AFTER_BLOCKS - 2, Relaxed);
    let last = seal(&initiator, 2, &[0; 16], 0);
    assert!(open(&responder, &last).is_ok());
    assert!(!initiator.is_usable(at(0)));
    assert_eq!(initiator.seal(3, &[0; 16], 0, &mut [0; 48]), None);
}

#[test]
fn chacha_counts_no_blocks() {
    let (initiator, _) = pair(Cipher::ChaCha20Poly1305);
    seal(&initiator, 0, &[0; 1420], 4);
    assert_eq!(initiator.sent.0.blocks.load(Relaxed), 0);
}

#[test]
fn a_keypair_dies_at_180_seconds() {
    let keypair = initiator();
    assert!(keypair.is_usable(at(179)) && keypair.is_alive(at(179)));
    assert!(!keypair.is_usable(at(180)) && !keypair.is_alive(at(180)));
}

#[test]
fn a_retired_keypair_does_nothing() {
    let (initiator, responder) = pair(Cipher::ChaCha20Poly1305);
    let message = seal(&initiator, 0, &[0; 16], 0);
    responder.retire();
    assert!(!responder.is_usable(at(0)));
    assert_eq!(open(&responder, &message), Err(DropReason::KeypairExpired));
}

#[test]
fn only_the_initiator_rekeys_by_age() {
    let (initiator, responder) = (initiator(), responder());
    assert!(!initiator.needs_rekey(at(119)) && initiator.needs_rekey(at(120)));
    assert!(!initiator.needs_rekey_on_receive(at(164)));
    assert!(initiator.needs_rekey_on_receive(at(165)));
    assert!(!responder.needs_rekey(at(179)) && !responder.needs_rekey_on_receive(at(179)));
    let hasty = initiator.with_rekey_after(Duration::from_secs(5));
    assert!(!hasty.needs_rekey(at(4)) && hasty.needs_rekey(at(5)));
}

#[test]
fn either_side_rekeys_by_messages() {
    for keypair in [initiator(), responder()] {
        keypair.sent.0.counter.store(REKEY_AFTER_MESSAGES, Relaxed);
        assert!(!keypair.needs_rekey(at(0)));
        keypair.reserve(1).unwrap();
        assert!(keypair.needs_rekey(at(0)));
    }
}

#[test]
fn a_responder_is_confirmed_once() {
    assert!(initiator().is_confirmed() && !initiator().confirm());
    let responder = responder();
    assert!(!responder.is_confirmed());
    assert!(responder.confirm() && !responder.confirm());
    assert!(responder.is_confirmed());
}

#[test]
fn no_key_is_shown() {
    let shown = format!("{:?} {:?}", keys(10, 20), initiator());
    assert!(!shown.contains("10, 10") && !shown.contains("0a0a"), "{shown}");
}

#[test]
fn senders_and_receivers_write_on_lines_of_their_own() {
    let keypair = initiator();
    let address = |octet: *const u8| octet.addr();
    let sent = address(std::ptr::from_ref(&keypair.sent).cast());
    let received = address(std::ptr::from_ref(&keypair.received).cast());
    let shared = address(std::ptr::from_ref(&keypair.chacha).cast());
    assert!(sent % 128 == 0 && received % 128 == 0);
    assert!(sent.abs_diff(received) >= 128 && sent / 128 != shared / 128);
    assert!(size_of::<Keypair>() <= 2560, "{}", size_of::<Keypair>());
}

proptest! {
    #[test]
    fn what_is_sealed_opens(
        plaintext in prop::collection::vec(any::<u8>(), 0..2000),
        padding in 0..=PADDING,
        counter in 0..1_u64 << 40,
        aes in any::<bool>(),
    ) {
        let cipher = CIPHERS[usize::from(aes)];
        let (initiator, responder) = pair(cipher);
        let message = seal(&initiator, counter, &plaintext, padding);
        let opened = open(&responder, &message).unwrap();
        prop_assert_eq!(opened, [&plaintext[..], &[0; PADDING][..padding]].concat());

        // The same as sealing plaintext and padding as one, in place.
        let mut whole = [&plaintext[..], &[0; PADDING][..padding]].concat();
        let (algorithm, key) = [(&CHACHA20_POLY1305, [10; 32]), (&AES_256_GCM, [11; 32])][usize::from(aes)];
        let key = LessSafeKey::new(UnboundKey::new(algorithm, &key).unwrap());
        key.seal_in_place_append_tag(nonce(counter), Aad::empty(), &mut whole).unwrap();
        prop_assert_eq!(&message[DATA_HEADER_LEN..], &whole[..]);
    }

    #[test]
    fn arbitrary_datagrams_are_refused(mut datagram in prop::collection::vec(any::<u8>(), 32..200)) {
        (datagram[0], datagram[1], datagram[2], datagram[3]) = (4, datagram[1] & 1, 0, 0);
        prop_assert!(open(&responder(), &datagram).is_err());
    }
}
