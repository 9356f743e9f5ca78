//! Filters with wildcards, in a trie of levels: `filter -> u32`, and for a topic all values whose filter matches.
//!
//! A node is a level; its `+` child and the value of `#` below it are in the node, its other children in one table over all
//! nodes, keyed by parent and level. A virtual host has a root of its own. No node exists without a filter at or under it.
//!
//! Cost: a match goes level by level over the nodes reached so far, at most two children each, and ends when there are none:
//! no recursion, no allocation once the scratch has room. It can visit 2^depth nodes, but only nodes that filters have made:
//! somebody who subscribes to all of `{a,+}/{a,+}/…` makes publishes to `a/a/…` as slow as he has filters. A level of a
//! filter costs a node of 48 bytes and 10 bytes in the table, unless it is shared.

use super::slots::Slots;
use super::table::{self, SlotEntry, Table};
use super::text::Text;
use crate::base::{HashKey, VhostId};
use std::cell::Cell;
use std::fmt;
use std::mem;

const NONE: u32 = u32::MAX;
/// Nodes of one level that the scratch keeps room for between matches.
const SCRATCH_KEPT: usize = 1024;

/// Values by wildcard filter. `u32::MAX` is no value.
#[derive(Debug)]
pub(super) struct Wildcards {
    key: HashKey,
    nodes: Slots<Node>,
    /// Children by parent and level.
    edges: Table<SlotEntry>,
    /// By vhost.
    roots: Vec<u32>,
    scratch: Scratch,
    /// Values held.
    len: usize,
    /// Bytes of labels that do not fit their node.
    label_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Node {
    label: Text<22>,
    parent: u32,
    /// The child for `+`.
    plus: u32,
    /// The value of the filter that ends here.
    here: u32,
    /// The value of the filter that ends in `#` below here.
    below: u32,
    /// Children that are neither `+` nor `#`.
    literals: u32,
}

impl Wildcards {
    pub(super) fn new(key: HashKey) -> Self {
        Self {
            key: key.derive("level"),
            nodes: Slots::new(),
            edges: Table::new(),
            roots: Vec::new(),
            scratch: Scratch::default(),
            len: 0,
            label_bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Gives memory back after much was removed.
    pub(super) fn shrink(&mut self) {
        self.nodes.shrink();
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        let roots = self.roots.capacity() * size_of::<u32>();
        self.nodes.memory() + self.edges.memory() + roots + self.label_bytes
    }

    /// Sets the value of a well-formed filter; gives the old one.
    pub(super) fn insert(&mut self, vhost: VhostId, filter: &str, value: u32) -> Option<u32> {
        debug_assert!(value != NONE, "is no value");
        let mut index = self.root_or_new(vhost);
        let mut multi = false;
        for level in filter.split('/') {
            if level == "#" {
                multi = true;
                break;
            }
            index = self.child_or_new(index, level);
        }
        let old = mem::replace(self.node_mut(index).value_mut(multi), value);
        self.len += usize::from(old == NONE);
        (old != NONE).then_some(old)
    }

    pub(super) fn get(&self, vhost: VhostId, filter: &str) -> Option<u32> {
        let (index, multi) = self.find(vhost, filter)?;
        let node = self.node(index);
        Some(if multi { node.below } else { node.here }).filter(|value| *value != NONE)
    }

    pub(super) fn remove(&mut self, vhost: VhostId, filter: &str) -> Option<u32> {
        let (index, multi) = self.find(vhost, filter)?;
        let old = mem::replace(self.node_mut(index).value_mut(multi), NONE);
        if old == NONE {
            return None;
        }
        self.len -= 1;
        self.prune(vhost, index);
        Some(old)
    }

    /// Calls `found` with the value of every filter that matches the topic, once each.
    pub(super) fn matches(&self, vhost: VhostId, topic: &str, mut found: impl FnMut(u32)) {
        let Some(root) = self.root(vhost) else { return };
        let (mut reached, mut next) = self.scratch.0.take();
        reached.push(root);
        // [MQTT-4.7.2-1]
        let mut wildcards = !topic.starts_with('$');
        for level in topic.split('/') {
            let mut hash = None;
            for index in reached.drain(..) {
                let node = self.node(index);
                if wildcards {
                    if node.below != NONE {
                        found(node.below);
                    }
                    if node.plus != NONE {
                        next.push(node.plus);
                    }
                }
                if node.literals > 0 {
                    let hash = *hash.get_or_insert_with(|| self.level_hash(level));
                    next.extend(self.literal(index, hash, level));
                }
            }
            wildcards = true;
            mem::swap(&mut reached, &mut next);
            if reached.is_empty() {
                break;
            }
        }
        for index in reached.drain(..) {
            let node = self.node(index);
            [node.here, node.below].into_iter().filter(|value| *value != NONE).for_each(&mut found);
        }
        reached.shrink_to(SCRATCH_KEPT);
        next.shrink_to(SCRATCH_KEPT);
        self.scratch.0.set((reached, next));
    }

    fn find(&self, vhost: VhostId, filter: &str) -> Option<(u32, bool)> {
        let mut index = self.root(vhost)?;
        for level in filter.split('/') {
            if level == "#" {
                return Some((index, true));
            }
            index = match level {
                "+" => Some(self.node(index).plus).filter(|plus| *plus != NONE)?,
                _ => self.literal(index, self.level_hash(level), level)?,
            };
        }
        Some((index, false))
    }

    fn literal(&self, parent: u32, level_hash: u64, level: &str) -> Option<u32> {
        let is = |entry: &SlotEntry| {
            let node = self.node(entry.slot);
            node.parent == parent && node.label.as_bytes() == level.as_bytes()
        };
        self.edges.find(edge_hash(parent, level_hash), is).map(|entry| entry.slot)
    }

    fn child_or_new(&mut self, parent: u32, level: &str) -> u32 {
        if level == "+" {
            let plus = self.node(parent).plus;
            if plus != NONE {
                return plus;
            }
            let child = self.nodes.insert(Node::new(parent, ""));
            self.node_mut(parent).plus = child;
            return child;
        }
        let level_hash = self.level_hash(level);
        if let Some(child) = self.literal(parent, level_hash, level) {
            return child;
        }
        let node = Node::new(parent, level);
        self.label_bytes += node.label.heap_bytes();
        let child = self.nodes.insert(node);
        let hash = edge_hash(parent, level_hash);
        self.edges.insert(hash, SlotEntry::new(hash, child));
        self.node_mut(parent).literals += 1;
        child
    }

    /// Removes the node and its ancestors as far as nothing needs them.
    fn prune(&mut self, vhost: VhostId, index: u32) {
        let mut index = index;
        while self.node(index).is_bare() {
            let node = self.nodes.remove(index).expect("nodes exist while their children do");
            self.label_bytes -= node.label.heap_bytes();
            if node.parent == NONE {
                self.roots[usize::from(vhost.0)] = NONE;
                return;
            }
            if self.node(node.parent).plus == index {
                self.node_mut(node.parent).plus = NONE;
            } else {
                let hash = edge_hash(node.parent, self.level_hash_of(node.label.as_bytes()));
                self.edges
                    .remove(hash, |entry| entry.slot == index)
                    .expect("every literal child has its edge");
                self.node_mut(node.parent).literals -= 1;
            }
            index = node.parent;
        }
    }

    fn root(&self, vhost: VhostId) -> Option<u32> {
        self.roots.get(usize::from(vhost.0)).copied().filter(|root| *root != NONE)
    }

    fn root_or_new(&mut self, vhost: VhostId) -> u32 {
        if let Some(root) = self.root(vhost) {
            return root;
        }
        let position = usize::from(vhost.0);
        if self.roots.len() <= position {
            self.roots.resize(position + 1, NONE);
        }
        let root = self.nodes.insert(Node::new(NONE, ""));
        self.roots[position] = root;
        root
    }

    fn node(&self, index: u32) -> &Node {
        self.nodes.get(index).expect("nodes exist while something names them")
    }

    fn node_mut(&mut self, index: u32) -> &mut Node {
        self.nodes.get_mut(index).expect("nodes exist while something names them")
    }

    fn level_hash(&self, level: &str) -> u64 {
        self.level_hash_of(level.as_bytes())
    }

    fn level_hash_of(&self, level: &[u8]) -> u64 {
        self.key.hash(VhostId(0), level)
    }
}

/// The level's hash is keyed and secret, so mixing the parent in needs no key.
fn edge_hash(parent: u32, level_hash: u64) -> u64 {
    table::mix(level_hash ^ u64::from(parent).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

impl Node {
    fn new(parent: u32, level: &str) -> Self {
        Self { label: Text::new(level), parent, plus: NONE, here: NONE, below: NONE, literals: 0 }
    }

    fn value_mut(&mut self, multi: bool) -> &mut u32 {
        if multi { &mut self.below } else { &mut self.here }
    }

    fn is_bare(&self) -> bool {
        self.plus == NONE && self.here == NONE && self.below == NONE && self.literals == 0
    }
}

/// The nodes a match has reached at one level and at the next. Taken out while a match runs, so that matching needs no `mut`.
#[derive(Default)]
struct Scratch(Cell<(Vec<u32>, Vec<u32>)>);

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scratch")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::slots::Slot;

    const KEY: HashKey = HashKey { k0: 1, k1: 2 };

    #[test]
    fn a_node_is_48_bytes() {
        assert_eq!((size_of::<Node>(), size_of::<Slot<Node>>()), (48, 48));
    }

    #[test]
    fn deep_filters_and_topics_end() {
        let mut trie = Wildcards::new(KEY);
        let empty = trie.memory();
        let plus = "+/".repeat(32_767) + "#";
        let literal = "a/".repeat(32_767) + "+";
        trie.insert(VhostId(3), &plus, 1);
        trie.insert(VhostId(3), &literal, 2);
        for (topic, expected) in [
            ("a/".repeat(32_767) + "a", vec![1, 2]),
            ("/".repeat(65_535), vec![1]),
            ("a/".repeat(32_766) + "a", vec![1]),
            ("a/".repeat(32_766), vec![1]),
            ("a/".repeat(32_765), vec![]),
        ] {
            let mut found = Vec::new();
            trie.matches(VhostId(3), &topic, |value| found.push(value));
            found.sort_unstable();
            assert_eq!(found, expected);
        }
        trie.matches(VhostId(0), "a", |_| panic!("no filter in this vhost"));
        assert_eq!((trie.remove(VhostId(3), &plus), trie.remove(VhostId(3), &plus)), (Some(1), None));
        assert_eq!(trie.remove(VhostId(3), &literal), Some(2));
        assert_eq!((trie.len(), trie.nodes.len(), trie.edges.len()), (0, 0, 0));
        assert_eq!(trie.memory() - trie.roots.capacity() * 4, empty);
    }

    #[test]
    fn labels_of_every_size() {
        let mut trie = Wildcards::new(KEY);
        for size in 0..40 {
            let filter = "ü".repeat(size) + "/+";
            assert_eq!(trie.insert(VhostId(0), &filter, 7), None);
            assert_eq!(trie.insert(VhostId(0), &filter, u32::try_from(size).unwrap()), Some(7));
        }
        for size in 0..40 {
            let filter = "ü".repeat(size) + "/+";
            let mut found = Vec::new();
            trie.matches(VhostId(0), &("ü".repeat(size) + "/x"), |value| found.push(value));
            assert_eq!(found, [u32::try_from(size).unwrap()]);
            assert_eq!(trie.get(VhostId(0), &filter), Some(u32::try_from(size).unwrap()));
            assert!(trie.remove(VhostId(0), &filter).is_some());
        }
        assert_eq!((trie.len(), trie.label_bytes), (0, 0));
    }
}
