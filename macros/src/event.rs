//! Generation of the impl of `derive(Event)`.
//!
//! Generated paths are absolute and spans are those of the user's attributes, so that an error of the compiler in
//! generated code, for example a key of a wrong type, points at the attribute that caused it.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Expr, ExprLit, Fields, Generics, Lit, Member, Path, Result, parse_quote};

use crate::attributes::{Attributes, Text, also};

/// Returns the impl of `Event`.
///
/// # Errors
/// All errors of the attributes and of the type, combined.
pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let (attributes, mut errors) = Attributes::parse(input);
    if let Data::Union(union) = &input.data {
        also(&mut errors, Error::new(union.union_token.span, "a union cannot be an event"));
    }
    // A missing attribute may just be misspelt, which is an error already.
    if errors.is_none() {
        let at = attributes.span.unwrap_or_else(|| input.ident.span());
        for (name, given) in [("topic", &attributes.topic), ("type", &attributes.event_type)] {
            if given.is_none() {
                also(&mut errors, Error::new(at, format!("`{name} = \"...\"` is missing in `#[event(...)]`")));
            }
        }
    }
    let key = key(input, &attributes).unwrap_or_else(|error| {
        also(&mut errors, error);
        TokenStream::new()
    });
    match errors {
        Some(errors) => Err(errors),
        None => Ok(implementation(input, &attributes, &key)),
    }
}

/// Writes the impl from attributes that were checked.
fn implementation(input: &DeriveInput, attributes: &Attributes, key: &TokenStream) -> TokenStream {
    let (name, root, codec) = (&input.ident, attributes.root(), attributes.codec());
    let text = |text: &Option<Text>| text.as_ref().map(|text| text.tokens(&root));
    let (topic, event_type) = (text(&attributes.topic), text(&attributes.event_type));
    let (major, minor) = attributes.version.unwrap_or((1, 0));
    let (upcast, downcast) = casts(attributes);
    let checks = checks(input, attributes);
    let generics = bounded(input.generics.clone(), &root);
    let (parameters, arguments, bounds) = generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #parameters #root::Event for #name #arguments #bounds {
            type Codec = #codec;
            const TOPIC: &'static str = #topic;
            const TYPE: &'static str = #event_type;
            const VERSION: #root::__private::Version = #root::__private::Version::new(#major, #minor);
            #upcast
            #downcast

            fn key(&self) -> ::core::option::Option<::std::borrow::Cow<'_, [::core::primitive::u8]>> {
                #key
            }
        }
        #checks
    }
}

/// Generates the constants of the conversions from and to older versions.
fn casts(attributes: &Attributes) -> (TokenStream, TokenStream) {
    let root = attributes.root();
    // The span of the attribute: a type that is not an event is reported there.
    let upcast = attributes.upcast.as_ref().map(|old| {
        quote_spanned! {old.span()=>
            const UPCAST: ::core::option::Option<#root::__private::Upcast<Self>> =
                ::core::option::Option::Some(#root::__private::Upcast::from::<#old>());
        }
    });
    let downcast = attributes.downcast.as_ref().map(|old| {
        quote_spanned! {old.span()=>
            const DOWNCAST: ::core::option::Option<#root::__private::Downcast<Self>> =
                ::core::option::Option::Some(#root::__private::Downcast::to::<#old>());
        }
    });
    (upcast.unwrap_or_default(), downcast.unwrap_or_default())
}

/// Generates constants that evaluate the constants of the conversions. Without them, an error would appear only where
/// the event is used first, as it does for a generic event.
fn checks(input: &DeriveInput, attributes: &Attributes) -> TokenStream {
    if !input.generics.params.is_empty() {
        return TokenStream::new();
    }
    let (name, root) = (&input.ident, attributes.root());
    let check = |old: &Option<Path>, constant: TokenStream| {
        old.as_ref().map(|old| {
            quote_spanned!(old.span()=> const _: () = ::core::assert!(<#name as #root::Event>::#constant.is_some());)
        })
    };
    let (upcast, downcast) = (check(&attributes.upcast, quote!(UPCAST)), check(&attributes.downcast, quote!(DOWNCAST)));
    quote!(#upcast #downcast)
}

/// Adds the bounds under which a generic type is an event.
fn bounded(mut generics: Generics, root: &TokenStream) -> Generics {
    // Without type parameters a bound would only hide which derive is missing.
    if generics.type_params().next().is_some() {
        generics.make_where_clause().predicates.push(parse_quote!(Self: #root::__private::Payload));
    }
    generics
}

/// Generates the body of `key`.
fn key(input: &DeriveInput, attributes: &Attributes) -> Result<TokenStream> {
    let root = attributes.root();
    let Some(key) = &attributes.key else { return Ok(quote!(::core::option::Option::None)) };
    let Some(member) = member(key) else {
        return Ok(quote_spanned!(key.span()=> #root::__private::key(#key)));
    };
    let fields = match &input.data {
        Data::Struct(data) => &data.fields,
        Data::Enum(_) | Data::Union(_) => {
            return Err(Error::new(
                key.span(),
                "only a struct has a key field; for an enum give an expression, such as `key = self.id()`",
            ));
        }
    };
    if !fields.members().any(|known| known == member) {
        return Err(Error::new(key.span(), no_such_field(input, fields, &member)));
    }
    Ok(quote_spanned!(key.span()=> #root::__private::Key::to_key(&self.#member)))
}

/// Returns the field that `key` names, if it is just a name or a number.
fn member(key: &Expr) -> Option<Member> {
    match key {
        Expr::Path(path) => path.path.get_ident().filter(|name| *name != "self").cloned().map(Member::Named),
        Expr::Lit(ExprLit { lit: Lit::Int(place), .. }) => {
            let index = place.base10_parse().ok()?;
            Some(Member::Unnamed(syn::Index { index, span: place.span() }))
        }
        _ => None,
    }
}

/// Returns the error of a key that is no field, with the fields that there are.
fn no_such_field(input: &DeriveInput, fields: &Fields, member: &Member) -> String {
    let text = |member: &Member| match member {
        Member::Named(name) => name.to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    };
    let known: Vec<_> = fields.members().map(|known| text(&known)).collect();
    let known = if known.is_empty() { "no field".to_owned() } else { known.join(", ") };
    format!("no field `{}` in `{}`, which has: {known}", text(member), input.ident)
}
