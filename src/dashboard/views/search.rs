//! Where an event id leads that somebody typed or pasted.

use crate::dashboard::Dashboard;

/// What an event id, as somebody pasted it, stands for.
pub(in crate::dashboard) fn pasted(text: &str) -> &str {
    text.trim_matches(|c: char| {
        c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '“' | '”' | '„' | '‘' | '’' | ',')
    })
}

/// Where a search leads: to one message, to a list, or nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::dashboard) enum Found {
    One(String),
    Many,
    Nothing,
    Failed,
}

/// Looks for messages by id, or of the event with this id.
pub(in crate::dashboard) async fn search(dashboard: &Dashboard, id: &str) -> Found {
    if id.parse::<crate::message::MessageId>().is_ok()
        && (matches!(
            dashboard.ask(|journal| journal.message(id)).await,
            Ok(Some(_))
        ) || dashboard.untried(id).await.is_some())
    {
        return Found::One(id.to_owned());
    }
    match dashboard.ask(|journal| journal.siblings(id, 2)).await {
        Err(_) => Found::Failed,
        Ok(found) => match &found[..] {
            [] => Found::Nothing,
            [one] => Found::One(one.id.clone()),
            _ => Found::Many,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pasted_is_cleaned() {
        for text in ["ord-1", " ord-1\n", "\"ord-1\"", "'ord-1',", "“ord-1”"] {
            assert_eq!(pasted(text), "ord-1");
        }
    }
}
