use secrecy::ExposeSecret;

use super::Check;
use crate::guarded::read_secret;
use crate::{Config, Mask, SecretSource};

/// Fewer characters could be guessed by trying.
const LEAST_KEY: usize = 32;

impl Check<'_> {
    pub(super) fn masks(&mut self, config: &Config) {
        for (at, target) in config.targets.iter().enumerate() {
            for (index, tag) in target.tags.iter().enumerate() {
                let (at, index) = (at.to_string(), index.to_string());
                let path = ["target", &at, "tags", &index, "mask"];
                match tag.mask {
                    Some(Mask::Bucket(width @ 0..=1)) => {
                        let message = format!("a bucket of {width} hides nothing");
                        self.error(&path, message, "write { bucket = 1000 }, for example");
                    }
                    Some(Mask::Hash) if config.mask.key.is_none() => {
                        let message = "the mask hash has no key".to_owned();
                        let fix = "write key = { file = \"/etc/lockgate/secrets/mask\" } below [mask]; `openssl rand -hex 32` makes one";
                        self.error(&path, message, fix);
                    }
                    _ => {}
                }
            }
        }
        let Some(SecretSource::File(file)) = &config.mask.key else {
            return;
        };
        let at = ["mask", "key", "file"];
        if !self.absolute(&at, file) {
            return;
        }
        match read_secret(file) {
            Ok(key) if key.expose_secret().chars().count() < LEAST_KEY => {
                let message = format!(
                    "the key in {} has fewer than {LEAST_KEY} characters",
                    file.display()
                );
                let fix = "make one by `openssl rand -hex 32`";
                self.error(&at, message, fix);
            }
            Ok(key) => self.secrets.mask_key = Some(key),
            Err(complaint) => self.complain(&at, complaint),
        }
    }
}
