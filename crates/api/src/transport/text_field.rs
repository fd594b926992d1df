//! Text fields of bodies: a type each, which reads only what its field may hold, and says so in the document.

/// Declares a text field: what it holds, how it is read, and how it is documented; `as` what it is called there, if not as the type.
macro_rules! text_field {
    ($(#[doc = $doc:literal])* $name:ident($inner:ty), $read:expr, $schema:expr) => {
        $crate::transport::text_field::text_field!($(#[doc = $doc])* $name as stringify!($name), $inner, $read, $schema);
    };
    ($(#[doc = $doc:literal])* $name:ident as $schema_name:expr, $inner:ty, $read:expr, $schema:expr) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug)]
        pub(crate) struct $name(pub(crate) $inner);

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                let read: fn(&str) -> Result<$inner, String> = $read;
                read(&text).map(Self).map_err(serde::de::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::Schema::from($schema.description(Some(concat!($($doc),*).trim())).build()).into()
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                $schema_name.into()
            }
        }
    };
}
pub(crate) use text_field;

/// A schema of texts.
pub(crate) fn text() -> utoipa::openapi::ObjectBuilder {
    utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::schema::Type::String)
}
