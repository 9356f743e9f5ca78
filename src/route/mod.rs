//! Topic tries, interest index, shared groups, retained store, matching.
