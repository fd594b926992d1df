//! What Svix's, Novu's and Convoy's documents on idempotency promise: each test proves the sentence that it quotes.

mod convoy;
mod novu;
mod svix;
