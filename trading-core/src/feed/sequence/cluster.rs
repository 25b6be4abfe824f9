//! Ids that lie where none was expected, until enough of them show that they are no mistake.

use crate::domain::Timestamp;
use crate::domain::bounds::JUMP_MAX;

/// How an id lies to those of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It belongs to them, and is now one of them.
    Joined,
    /// It is one of them.
    Known,
    /// It lies elsewhere.
    Apart,
}

/// Some ids near each other, ascending, each with the time of its trade. Whoever holds one bounds its length.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    ids: Vec<(u64, Timestamp)>,
}

impl Cluster {
    pub(super) fn new(id: u64, at: Timestamp) -> Self {
        Self { ids: vec![(id, at)] }
    }

    pub(super) fn add(&mut self, id: u64, at: Timestamp) -> Place {
        match self.ids.binary_search_by_key(&id, |(known, _)| *known) {
            Ok(_) => Place::Known,
            Err(place) => {
                let is_near = |near: Option<&(u64, Timestamp)>| {
                    near.is_some_and(|(other, _)| other.abs_diff(id) <= JUMP_MAX)
                };
                let before = place.checked_sub(1).and_then(|before| self.ids.get(before));
                if !is_near(before) && !is_near(self.ids.get(place)) {
                    return Place::Apart;
                }
                self.ids.insert(place, (id, at));
                Place::Joined
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.ids.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Timestamp)> {
        self.ids.iter().copied()
    }

    pub(super) fn first(&self) -> Option<(u64, Timestamp)> {
        self.ids.first().copied()
    }
}
