//! Enums whose values have one text each, the same in the database, in JSON and in logs.

/// Defines an enum from its variants and their texts: `Variant = "text"`. The enum gets `ALL`, `as_str`,
/// `Display` and `FromStr`.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, in the order of their definition.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The value's text in the database, in JSON and in logs.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::base::text_enum::UnknownText;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok($name::$variant),)+
                    _ => Err($crate::base::text_enum::UnknownText {
                        text: text.to_owned(),
                        verdict: format!("none of {}", [$($text),+].join(", ")),
                    }),
                }
            }
        }
    };
}
pub(crate) use text_enum;

/// The text is not the text of any value of an enum.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is {verdict}")]
pub struct UnknownText {
    /// The text.
    pub text: String,
    /// What it is not: `none of pending, completed`.
    pub verdict: String,
}
