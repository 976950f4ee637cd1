//! What is not there, and why that may be.

use http::StatusCode;
use maud::{Markup, html};

use crate::dashboard::frame::{Nav, View};
use crate::dashboard::words;

fn not_found(title: &str, body: Markup) -> View {
    View {
        status: StatusCode::NOT_FOUND,
        ..View::new(Nav::None, title, 0, body)
    }
}

/// No such address.
pub(in crate::dashboard) fn address(path: &str) -> View {
    let body = html! {
        h1 { "There is nothing at this address" }
        p { code { (words::text(path)) } }
        p { a href="/" { "Overview" } " · " a href="/messages" { "Messages" } }
    };
    not_found("not found", body)
}

/// No such subscription or channel.
pub(in crate::dashboard) fn resource(kind: &str, namespace: &str, name: &str) -> View {
    let body = html! {
        h1 { "There is no " (kind) " " (words::text(&format!("{namespace}/{name}"))) }
        p { "It may have been removed from the manifests, or its file may be broken: see the problems on the " a href="/" { "Overview" } "." }
        pre.cmd { "levada get " (kind) "s" }
    };
    not_found("not found", body)
}

/// No message of this id, or of an event with this id.
pub(in crate::dashboard) fn message(id: &str) -> View {
    let body = html! {
        h1 { "No message of " (words::id(id)) }
        p { "This id is not in the journal, neither as a message nor as an event. The likely causes:" }
        ul {
            li { b { "Older than the journal keeps." } " How far it reaches back stands at the end of this page." }
            li { b { "It came while the journal had a gap." } " Gaps are shown on the " a href="/" { "Overview" } "; deliveries went on." }
            li { b { "Not accepted, or not tried yet." } " A message enters the journal with its first attempt; before that it is found by its own id alone. Look at the lag of its subscription. An event counts as accepted once its producer was answered 202." }
        }
        p { "Ids are compared exactly, capitals and blanks included." }
    };
    not_found("not found", body)
}

/// Something failed on the way to a view.
pub(in crate::dashboard) fn failed(status: StatusCode, what: &str) -> View {
    let body = html! {
        h1 { "This did not work" }
        p.trouble role="alert" { (words::icon("bang", "amber")) " " (words::text(what)) }
        p { a href="/" { "Overview" } }
    };
    View {
        status,
        ..View::new(Nav::None, "failed", 0, body)
    }
}

/// The form for the token; `to` is where to go then.
pub(in crate::dashboard) fn sign_in(to: &str, wrong: bool) -> View {
    let body = html! {
        h1 { "Sign in" }
        @if wrong { p.trouble role="alert" { "This is not the token." } }
        form method="post" action="/sign-in" {
            input type="hidden" name="to" value=(to);
            div.fields {
                label { "Token of the admin port " input type="password" name="token" autocomplete="current-password" required autofocus; }
                button.main { "Sign in" }
            }
            p.hint { "It is the value of LEVADA_ADMIN_TOKEN, or admin.token, of this node." }
        }
    };
    let status = if wrong {
        StatusCode::UNAUTHORIZED
    } else {
        StatusCode::OK
    };
    View {
        status,
        ..View::new(Nav::None, "sign in", 0, body)
    }
}
