//! One request, one effect: the header, the event id and the message key.

mod claim;
mod layers;
mod syntax;
