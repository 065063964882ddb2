//! Attributes of `#[event(..)]`.
//!
//! Attributes may be spread over several `#[event(..)]`, each may be given once, and every error points at its own
//! tokens. Errors are collected, not returned one by one, so that one compilation shows all of them.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::meta::ParseNestedMeta;
use syn::parse::Parse;
use syn::spanned::Spanned;
use syn::{DeriveInput, Error, Expr, ExprLit, Lit, LitStr, Path, Result};

/// The parsed attributes; all errors in them are reported at once.
#[derive(Default)]
pub(crate) struct Attributes {
    /// The topic. Required.
    pub(crate) topic: Option<Text>,
    /// The type on the wire. Required.
    pub(crate) event_type: Option<Text>,
    /// The major and minor version. Default: 1.0.
    pub(crate) version: Option<(u32, u32)>,
    /// The type of the older version that is read as this event. Default: none.
    pub(crate) upcast: Option<Path>,
    /// The type of the older version that this event can be written as. Default: none.
    pub(crate) downcast: Option<Path>,
    /// The key: a field's name or number, or an expression over `self`. Default: no key.
    pub(crate) key: Option<Expr>,
    /// The codec. Default: JSON.
    pub(crate) codec: Option<Codec>,
    /// The path of tidings, for crates that rename or re-export it. Default: `::tidings`.
    pub(crate) root: Option<Path>,
    /// The first `event` attribute, where missing attributes are reported.
    pub(crate) span: Option<Span>,
}

/// The text of a topic or a type.
pub(crate) enum Text {
    Literal(LitStr),
    /// A constant, or a macro such as `concat!`: its value is checked when the event is compiled.
    Constant(Expr),
}

impl Text {
    /// Returns the expression of the text.
    pub(crate) fn tokens(&self, root: &TokenStream) -> TokenStream {
        match self {
            Self::Literal(text) => text.to_token_stream(),
            Self::Constant(text) => quote_spanned!(text.span()=> #root::__private::checked_name(#text)),
        }
    }
}

/// The codec of the event.
pub(crate) enum Codec {
    /// A codec of tidings, by its type's name.
    Ours(&'static str, Span),
    /// A user's codec.
    Path(Path),
}

impl Attributes {
    /// Parses all `event` attributes. Returns what could be parsed, for further checks, and the errors found.
    pub(crate) fn parse(input: &DeriveInput) -> (Self, Option<Error>) {
        let mut attributes = Self::default();
        let mut errors = None;
        for attribute in input.attrs.iter().filter(|a| a.path().is_ident("event")) {
            attributes.span.get_or_insert_with(|| attribute.path().span());
            let read = attribute.parse_nested_meta(|meta| {
                // Parsing stops only if the value cannot be skipped.
                let value: Expr = meta.value()?.parse()?;
                attributes.read(&meta, value).unwrap_or_else(|error| also(&mut errors, error));
                Ok(())
            });
            read.unwrap_or_else(|error| also(&mut errors, error));
        }
        (attributes, errors)
    }

    /// Reads one `name = value`.
    fn read(&mut self, meta: &ParseNestedMeta<'_>, value: Expr) -> Result<()> {
        let (name, value) = (meta.path.to_token_stream().to_string(), ungrouped(value));
        match name.as_str() {
            "topic" => set(meta, &mut self.topic, name_of(value)?),
            "type" => set(meta, &mut self.event_type, name_of(value)?),
            "version" => set(meta, &mut self.version, version(&value)?),
            "key" => set(meta, &mut self.key, key(value)?),
            "codec" => set(meta, &mut self.codec, codec(value)?),
            "crate" => set(meta, &mut self.root, path(value)?),
            "upcast_from" => set(meta, &mut self.upcast, path(value)?),
            "downcast_to" => set(meta, &mut self.downcast, path(value)?),
            _ => {
                let known = "`topic`, `type`, `version`, `key`, `codec`, `upcast_from`, `downcast_to` or `crate`";
                Err(meta.error(format!("unknown `{name}`: expected {known}")))
            }
        }
    }

    /// Returns the path of tidings.
    pub(crate) fn root(&self) -> TokenStream {
        self.root.as_ref().map_or_else(|| quote!(::tidings), |path| generated(path.to_token_stream()))
    }

    /// Returns the codec's type.
    pub(crate) fn codec(&self) -> TokenStream {
        let root = self.root();
        match &self.codec {
            None => quote!(#root::codec::Json),
            Some(Codec::Path(path)) => path.to_token_stream(),
            Some(Codec::Ours(name, span)) => {
                let name = syn::Ident::new(name, *span);
                generated(quote_spanned!(*span=> #root::codec::#name))
            }
        }
    }
}

/// Returns the same tokens at the same positions, marked as generated code, to which a user's lints do not apply.
fn generated(tokens: TokenStream) -> TokenStream {
    let ours = |mut token: TokenTree| {
        token.set_span(token.span().resolved_at(Span::call_site()));
        token
    };
    tokens.into_iter().map(ours).collect()
}

/// Adds `error` to those found before.
pub(crate) fn also(errors: &mut Option<Error>, error: Error) {
    match errors {
        Some(errors) => errors.combine(error),
        None => *errors = Some(error),
    }
}

/// Sets an attribute that may be given once.
fn set<T>(meta: &ParseNestedMeta<'_>, slot: &mut Option<T>, value: T) -> Result<()> {
    if slot.replace(value).is_some() { Err(meta.error("given twice")) } else { Ok(()) }
}

/// Returns the expression that a macro passed on as a literal or an expression.
fn ungrouped(value: Expr) -> Expr {
    match value {
        Expr::Group(group) => ungrouped(*group.expr),
        Expr::Paren(paren) => ungrouped(*paren.expr),
        other => other,
    }
}

/// Parses the text of a topic or type. White space is refused: it is a typing error that no other check would find.
fn name_of(value: Expr) -> Result<Text> {
    let text = match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => text,
        Expr::Path(_) | Expr::Macro(_) => return Ok(Text::Constant(value)),
        other => {
            return Err(Error::new(other.span(), "expected a string literal, a constant, or a macro as `concat!`"));
        }
    };
    let value = text.value();
    if value.is_empty() {
        return Err(Error::new(text.span(), "must not be empty"));
    }
    if value.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Error::new(text.span(), "must not contain white space or control characters"));
    }
    Ok(Text::Literal(text))
}

/// Parses `2` or `"2.1"`.
fn version(value: &Expr) -> Result<(u32, u32)> {
    let expected = || Error::new(value.span(), "expected a version such as `2` or `\"2.1\"`");
    let Expr::Lit(ExprLit { lit, .. }) = value else { return Err(expected()) };
    match lit {
        Lit::Int(major) => Ok((major.base10_parse().map_err(|_| expected())?, 0)),
        Lit::Str(text) => {
            let text = text.value();
            let (major, minor) = text.split_once('.').unwrap_or((&text, "0"));
            // `parse` alone would accept a sign.
            let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
            number(major).zip(number(minor)).ok_or_else(expected)
        }
        Lit::Float(_) => Err(Error::new(value.span(), "a version with a minor number is text, such as `\"2.1\"`")),
        _ => Err(expected()),
    }
}

/// Parses a field or an expression over `self`, quoted or not.
fn key(value: Expr) -> Result<Expr> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => {
            text.parse().map_err(|_| Error::new(text.span(), "not a field or an expression over `self`"))
        }
        other => Ok(other),
    }
}

/// Parses the name of a codec of tidings, or the path of another. A lower-case word that is neither is reported as a
/// misspelt name.
fn codec(value: Expr) -> Result<Codec> {
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &value else { return Ok(Codec::Path(path(value)?)) };
    match text.value().as_str() {
        "json" => Ok(Codec::Ours("Json", text.span())),
        "cloudevents" => Ok(Codec::Ours("CloudEvents", text.span())),
        "cloudevents-structured" => Ok(Codec::Ours("StructuredCloudEvents", text.span())),
        "postcard" => Ok(Codec::Ours("Postcard", text.span())),
        other if other.starts_with(char::is_lowercase) && !other.contains("::") => Err(Error::new(
            text.span(),
            format!(
                "unknown codec `{other}`: expected `json`, `postcard`, `cloudevents`, `cloudevents-structured` or the path of a type that is a `Codec`"
            ),
        )),
        _ => Ok(Codec::Path(path(value)?)),
    }
}

/// Parses a path, quoted or not.
fn path(value: Expr) -> Result<Path> {
    match value {
        Expr::Path(path) if path.qself.is_none() => Ok(path.path),
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => {
            text.parse_with(Path::parse).map_err(|_| Error::new(text.span(), "not a path"))
        }
        other => Err(Error::new(other.span(), "not a path")),
    }
}
