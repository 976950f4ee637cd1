//! Finds events that would go round for ever: channel to subscription to channel.

use std::collections::{BTreeMap, BTreeSet};

use crate::channel::ResourceName;

/// The ways events take from channel to channel, as long as none of them is a circle.
#[derive(Clone, Debug, Default)]
pub struct Loops(BTreeMap<ResourceName, BTreeSet<ResourceName>>);

impl Loops {
    /// Adds a way from channel to channel; when it would close a circle it is not added, and the
    /// circle is returned: the channels in order, the first one again at the end.
    pub fn add(&mut self, from: &ResourceName, to: &ResourceName) -> Option<Vec<ResourceName>> {
        if let Some(mut way) = self.way(to, from) {
            way.insert(0, from.clone());
            return Some(way);
        }
        self.0.entry(from.clone()).or_default().insert(to.clone());
        None
    }

    /// A way from `from` to `to`, both included.
    fn way(&self, from: &ResourceName, to: &ResourceName) -> Option<Vec<ResourceName>> {
        let mut came_from = BTreeMap::new();
        let mut open = vec![from];
        while let Some(channel) = open.pop() {
            if channel == to {
                let mut way = vec![channel.clone()];
                while let Some(before) = way.last().and_then(|last| came_from.get(last)) {
                    way.push(ResourceName::clone(before));
                }
                way.reverse();
                return Some(way);
            }
            for next in self.0.get(channel).into_iter().flatten() {
                if next != from && !came_from.contains_key(next) {
                    came_from.insert(next.clone(), channel.clone());
                    open.push(next);
                }
            }
        }
        None
    }
}

/// `a -> b -> a`
pub(crate) fn show(circle: &[ResourceName]) -> String {
    let names: Vec<_> = circle.iter().map(ToString::to_string).collect();
    names.join(" -> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_found_and_not_added() {
        let name = |text: &str| text.parse::<ResourceName>().unwrap();
        let (a, b, c) = (name("a"), name("b"), name("c"));
        let mut loops = Loops::default();
        assert_eq!(loops.add(&a, &a), Some(vec![a.clone(), a.clone()]));
        assert_eq!(loops.add(&a, &b), None);
        assert_eq!(loops.add(&a, &c), None);
        assert_eq!(loops.add(&b, &c), None);
        let circle = loops.add(&c, &a).unwrap();
        assert_eq!((circle.first(), circle.last()), (Some(&c), Some(&c)));
        assert_eq!(circle[1], a);
        assert_eq!(loops.add(&b, &a), Some(vec![b.clone(), a, b]));
        assert_eq!(show(&[c.clone(), c]), "default/c -> default/c");
    }
}
