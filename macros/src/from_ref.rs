//! Generation of the impls of `derive(FromRef)`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, Fields, LitStr, Path, Result, parse_quote};

/// The name of the attribute.
const ATTRIBUTE: &str = "from_ref";

/// Returns one impl of `FromRef` per field.
///
/// # Errors
/// The type is no struct with named or numbered fields, it has type parameters, or an attribute is wrong.
pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(input.ident.span(), "only a struct has parts that handlers can extract"));
    };
    if !input.generics.params.is_empty() {
        let text = "a state with generic parameters needs its own impl of `FromRef` for the type of each part";
        return Err(Error::new(input.generics.span(), text));
    }
    if matches!(data.fields, Fields::Unit) {
        return Err(Error::new(input.ident.span(), "a unit struct has no parts that handlers can extract"));
    }
    let root = root(input)?;
    let members: Vec<_> = data.fields.members().collect();
    let mut impls = TokenStream::new();
    for (field, member) in data.fields.iter().zip(members) {
        if is_skipped(field)? {
            continue;
        }
        let (state, part) = (&input.ident, &field.ty);
        // The span of the field's type: two fields of one type are reported where they stand.
        impls.extend(quote_spanned! {part.span()=>
            #[automatically_derived]
            impl #root::handler::FromRef<#state> for #part {
                fn from_ref(state: &#state) -> Self {
                    <#part as ::core::clone::Clone>::clone(&state.#member)
                }
            }
        });
    }
    Ok(impls)
}

/// Returns the path of tidings.
fn root(input: &DeriveInput) -> Result<TokenStream> {
    let mut root: Option<Path> = None;
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident(ATTRIBUTE)) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("only `crate = \"path\"` is known here"));
            }
            root = Some(meta.value()?.parse::<LitStr>()?.parse()?);
            Ok(())
        })?;
    }
    let root = root.unwrap_or_else(|| parse_quote!(::tidings));
    Ok(quote!(#root))
}

/// Returns whether a field is not extracted.
fn is_skipped(field: &Field) -> Result<bool> {
    let mut skipped = false;
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident(ATTRIBUTE)) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("skip") {
                return Err(meta.error("only `skip` is known here"));
            }
            skipped = true;
            Ok(())
        })?;
    }
    Ok(skipped)
}
