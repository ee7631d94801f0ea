//! The keys of a tunnel, as they were read.

use std::collections::HashMap;

use proto::key::{PresharedKey, PrivateKey, PublicKey};

use crate::channel::message::SessionSetup;
use crate::config::{CipherPolicy, Config, Local, Security};
use crate::keyfile::{self, Exposed, KeyFileError};

/// The keys of a tunnel with security.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) private: PrivateKey,
    /// Of the peers that have one.
    pub(super) preshared: HashMap<PublicKey, PresharedKey>,
}

impl Keys {
    /// Reads the keys that `config` names; none without security.
    pub(super) fn read(config: &Config) -> Result<Option<Self>, KeyFileError> {
        let Some(source) = config
            .local
            .private_key
            .as_ref()
            .filter(|_| config.local.security == Security::Wireguard)
        else {
            return Ok(None);
        };
        let (private, exposed) = keyfile::read_private(source)?;
        warn(exposed.as_ref());
        let mut preshared = HashMap::new();
        for peer in &config.peers {
            if let (Some(public_key), Some(source)) = (peer.public_key, &peer.preshared_key) {
                let (key, exposed) = keyfile::read_preshared(source)?;
                warn(exposed.as_ref());
                preshared.insert(public_key, key);
            }
        }
        Ok(Some(Self { private, preshared }))
    }

    /// What a worker needs to be this side; `lost` if sessions have ended with another worker.
    pub(super) fn setup(&self, local: &Local, lost: bool) -> SessionSetup {
        let (chacha, aes) = match local.ciphers {
            CipherPolicy::Auto => (true, has_aes()),
            CipherPolicy::Aes256Gcm => (false, true),
            CipherPolicy::ChaCha20Poly1305 => (true, false),
        };
        SessionSetup {
            private_key: (&self.private).into(),
            chacha,
            aes,
            extensions: local.extensions,
            rekey_after: local.rekey_after,
            lost,
        }
    }

    pub(super) fn public(&self) -> PublicKey {
        self.private.public_key()
    }
}

fn warn(exposed: Option<&Exposed>) {
    if let Some(exposed) = exposed {
        tracing::warn!("{exposed}");
    }
}

/// Whether the processor encrypts with AES by itself; otherwise ChaCha20 is faster.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}
