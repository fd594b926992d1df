//! Where in a request the parts of its key are: `request.header.X-Id`, `request.body.order.id`, `request.query.id`.
//!
//! The three spellings are those that Convoy documents (<https://docs.getconvoy.io/product-manual/idempotency>).

use thiserror::Error;

/// The most locations of one source.
pub const MAX_LOCATIONS: usize = 16;
/// The longest location, in bytes.
pub const MAX_LENGTH: usize = 256;
/// The most parts of a path into a body.
pub const MAX_PARTS: usize = 16;

/// A place in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub(super) place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A header's name, in small letters.
    Header(String),
    /// A parameter's name.
    Query(String),
    /// The names and positions on the way into a body.
    Body(Vec<String>),
}

/// The places in a request that make its key together, in this order. None: the source tells no repeats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locations(Vec<Location>);

/// A list of locations that is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("entry {index}, {text:?}: {problem}")]
pub struct InvalidLocation {
    /// Which entry, counted from 0.
    pub index: usize,
    /// What it says, shortened.
    pub text: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a location.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Problem {
    /// Not one of the three.
    #[error(
        "must be `request.header.<name>`, `request.query.<name>` or `request.body.<field>`, where a field may be `a.b` or `items.0.id`"
    )]
    Unknown,
    /// A name that no header can have.
    #[error("does not name a header: a name has letters, digits and any of !#$%&'*+-.^_`|~")]
    HeaderName,
    /// A path with nothing between two dots.
    #[error("has an empty part: write names and positions with single dots between them")]
    EmptyPart,
    /// An array's elements in another spelling.
    #[error("must name one element of an array by its position, counted from 0: `items.0.id`")]
    Wildcard,
    /// Too many parts.
    #[error("has too many parts: a field may have {MAX_PARTS}")]
    Deep,
    /// Too long.
    #[error("is too long: use at most {MAX_LENGTH} bytes")]
    Long,
    /// There before.
    #[error("stands twice: leave one out")]
    Twice,
    /// Too many.
    #[error("is one too many: a source may have {MAX_LOCATIONS} locations")]
    Many,
}

impl Location {
    /// Reads one location.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.len() > MAX_LENGTH {
            return Err(Problem::Long);
        }
        let rest = |start: &str| text.strip_prefix(start).filter(|rest| !rest.is_empty());
        let place = if let Some(name) = rest("request.header.") {
            header_name(name).map(Place::Header).ok_or(Problem::HeaderName)?
        } else if let Some(name) = rest("request.query.") {
            Place::Query(name.to_owned())
        } else if let Some(path) = rest("request.body.") {
            Place::Body(body_path(path)?)
        } else {
            return Err(Problem::Unknown);
        };
        Ok(Self { place })
    }

    /// Whether it lies in the body.
    pub fn is_in_body(&self) -> bool {
        matches!(self.place, Place::Body(_))
    }

    /// The one spelling of this location: a header's name in small letters, anything else as it was given.
    pub fn text(&self) -> String {
        match &self.place {
            Place::Header(name) => format!("request.header.{name}"),
            Place::Query(name) => format!("request.query.{name}"),
            Place::Body(parts) => format!("request.body.{}", parts.join(".")),
        }
    }
}

/// A name in small letters, if it is a token (RFC 9110 §5.6.2).
pub fn header_name(name: &str) -> Option<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!name.is_empty() && name.bytes().all(is_token)).then(|| name.to_ascii_lowercase())
}

fn body_path(path: &str) -> Result<Vec<String>, Problem> {
    let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
    if parts.iter().any(String::is_empty) {
        return Err(Problem::EmptyPart);
    }
    // What other languages of paths mean by these would be taken for a name here, and the key would silently never be there.
    if parts.iter().any(|part| ["#", "$", "*"].contains(&part.as_str()) || part.contains(['[', ']'])) {
        return Err(Problem::Wildcard);
    }
    if parts.len() > MAX_PARTS { Err(Problem::Deep) } else { Ok(parts) }
}

impl Locations {
    /// Reads an ordered list of locations.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, InvalidLocation> {
        let mut locations = Self::default();
        for (index, text) in texts.iter().map(AsRef::as_ref).enumerate() {
            let refuse = |problem| InvalidLocation { index, text: text.chars().take(MAX_LENGTH).collect(), problem };
            if index >= MAX_LOCATIONS {
                return Err(refuse(Problem::Many));
            }
            let location = Location::parse(text).map_err(refuse)?;
            if locations.0.contains(&location) {
                return Err(refuse(Problem::Twice));
            }
            locations.0.push(location);
        }
        Ok(locations)
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Location> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them lies in the body, which has to be parsed then.
    pub fn need_body(&self) -> bool {
        self.0.iter().any(Location::is_in_body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_places_are_read_and_spelled() {
        for (text, spelled) in [
            ("request.header.X-Request-ID", "request.header.x-request-id"),
            ("request.header.x.dotted", "request.header.x.dotted"),
            ("request.query.q.Id", "request.query.q.Id"),
            ("request.body.order.items.0.id", "request.body.order.items.0.id"),
        ] {
            assert_eq!(Location::parse(text).expect("a location").text(), spelled);
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_position() {
        let bad = [
            ("", Problem::Unknown),
            ("request", Problem::Unknown),
            ("request.header", Problem::Unknown),
            ("request.header.", Problem::Unknown),
            ("req.header.x", Problem::Unknown),
            ("request.Header.x", Problem::Unknown),
            ("request.QueryParam.x", Problem::Unknown),
            ("request.cookie.x", Problem::Unknown),
            (" request.body.a", Problem::Unknown),
            ("request.header.a b", Problem::HeaderName),
            ("request.header.é", Problem::HeaderName),
            ("request.body.a..b", Problem::EmptyPart),
            ("request.body.a.", Problem::EmptyPart),
            ("request.body.items.#.id", Problem::Wildcard),
            ("request.body.items.$.id", Problem::Wildcard),
            ("request.body.items[0].id", Problem::Wildcard),
            ("request.query.Q", Problem::Twice),
        ];
        for (text, problem) in bad {
            let refused = Locations::parse(&["request.query.Q", text]).expect_err(text);
            assert_eq!(refused, InvalidLocation { index: 1, text: text.to_owned(), problem });
        }
        let long = format!("request.body.{}", "a".repeat(MAX_LENGTH));
        assert_eq!(Location::parse(&long), Err(Problem::Long));
        assert_eq!(Location::parse(&format!("request.body.{}", ["a"; MAX_PARTS + 1].join("."))), Err(Problem::Deep));
        let many: Vec<_> = (0..=MAX_LOCATIONS).map(|i| format!("request.query.{i}")).collect();
        assert_eq!(Locations::parse(&many).map_err(|refused| refused.problem), Err(Problem::Many));
        assert!(Locations::parse(&many[1..]).is_ok());
    }

    #[test]
    fn only_a_location_in_the_body_needs_it() {
        assert!(!Locations::default().need_body());
        assert!(!Locations::parse(&["request.query.a", "request.header.b"]).expect("locations").need_body());
        assert!(Locations::parse(&["request.query.a", "request.body.b"]).expect("locations").need_body());
    }
}
