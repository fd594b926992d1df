//! Senders that put an HMAC of the body into a header, and nothing else.

use super::{Incoming, Refusal, malformed, one_header};
use crate::mac::{Encoding, Hash, SharedSecret};

/// How the HMAC of a body is sent along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBody {
    /// The header's name.
    pub header: String,
    /// What stands before the HMAC in it.
    pub prefix: String,
    /// Which hash.
    pub hash: Hash,
    /// Which spelling.
    pub encoding: Encoding,
}

impl SignedBody {
    /// GitHub (<https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>).
    pub fn github() -> Self {
        Self::of("x-hub-signature-256", "sha256=", Encoding::Hex)
    }

    /// Shopify (<https://shopify.dev/docs/apps/build/webhooks/subscribe/https>, "Validate the origin of your webhook").
    pub fn shopify() -> Self {
        Self::of("x-shopify-hmac-sha256", "", Encoding::Base64)
    }

    /// X, formerly Twitter (<https://docs.x.com/x-api/webhooks/quickstart>, "Validating the signature header").
    pub fn x() -> Self {
        Self::of("x-twitter-webhooks-signature", "sha256=", Encoding::Base64)
    }

    fn of(header: &str, prefix: &str, encoding: Encoding) -> Self {
        Self { header: header.to_owned(), prefix: prefix.to_owned(), hash: Hash::Sha256, encoding }
    }

    pub(super) fn verify(&self, secret: &SharedSecret, request: &Incoming<'_>) -> Result<(), Refusal> {
        let value = one_header(request, &self.header)?;
        let expected = match self.encoding {
            Encoding::Hex => "the HMAC of the body in hexadecimal digits, behind the prefix if there is one",
            Encoding::Base64 => "the HMAC of the body in base64, behind the prefix if there is one",
        };
        let mac = value.strip_prefix(&self.prefix).and_then(|text| self.encoding.decode(text));
        let mac = mac.ok_or_else(|| malformed(&self.header, expected))?;
        let fits = self.hash.verifies(secret, &[request.body], &mac);
        if fits { Ok(()) } else { Err(Refusal::Mismatch(self.header.clone())) }
    }
}

/// The `response_token` that X expects for the `crc_token` of its challenge: who answers it has the secret
/// (<https://docs.x.com/x-api/webhooks/quickstart>, "The CRC check").
pub fn answer_to_challenge(secret: &SharedSecret, token: &str) -> String {
    format!("sha256={}", Encoding::Base64.encode(&Hash::Sha256.mac(secret, &[token.as_bytes()])))
}
