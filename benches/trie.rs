//! What matching, subscribing and a subscription cost with a million filters: `cargo bench --no-default-features --bench trie`.
//!
//! The filters: 950,000 of about 30 bytes without wildcards; 50,000 with: a thousand `site/+/temperature`, three over
//! everything, and `site/device/#`. A topic is matched by 3 to 5 of them.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use quelea::base::{HashKey, ShardId, VhostId};
use quelea::route::{Change, Delta, Interest, Subscriber, SubscriptionOptions, Trie};
use std::hint::black_box;
use std::time::Duration;

const KEY: HashKey = HashKey { k0: 0x0123_4567_89ab_cdef, k1: 0xfedc_ba98_7654_3210 };
const VHOST: VhostId = VhostId(0);
const EXACT: u32 = 950_000;
const WILDCARD: u32 = 50_000;

fn topic(n: u32) -> String {
    format!("site{}/device{n:08}/temperature", n % 1000)
}

fn filter(n: u32) -> String {
    match n {
        0..EXACT => topic(n),
        EXACT => "+/+/temperature".into(),
        _ if n == EXACT + 1 => "#".into(),
        _ if n == EXACT + 2 => "+/+/alarm/#".into(),
        _ if n < EXACT + 1000 => format!("site{}/+/temperature", n - EXACT),
        _ => format!("site{}/device{:08}/#", (n - EXACT) * 19 % 1000, (n - EXACT) * 19),
    }
}

fn scattered(count: u32, below: u32) -> impl Iterator<Item = u32> {
    (0..count).map(move |n| {
        let hash = u64::from(n.wrapping_mul(0x9e37_79b1).rotate_left(13).wrapping_mul(0x85eb_ca6b));
        u32::try_from((hash * u64::from(below)) >> 32).expect("below a u32")
    })
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

#[allow(clippy::print_stderr, reason = "a bench reports")]
fn report(what: &str, count: u32, counted: usize, resident: usize) {
    let count = count as usize;
    eprintln!("{what}: {} B each counted, {} B each resident", counted / count, resident / count);
}

fn full_trie() -> Trie {
    let mut trie = Trie::new(KEY);
    let before = resident_bytes();
    for n in 0..EXACT {
        trie.insert(VHOST, &filter(n), Subscriber(n), SubscriptionOptions::default());
    }
    report("exact filters", EXACT, trie.memory(), resident_bytes().saturating_sub(before));
    let (counted, before) = (trie.memory(), resident_bytes());
    for n in EXACT..EXACT + WILDCARD {
        trie.insert(VHOST, &filter(n), Subscriber(n), SubscriptionOptions::default());
    }
    let resident = resident_bytes().saturating_sub(before);
    report("wildcard filters", WILDCARD, trie.memory() - counted, resident);
    trie
}

fn matching(criterion: &mut Criterion) {
    let mut trie = full_trie();
    let topics: Vec<_> = scattered(200_000, EXACT).map(topic).collect();
    let others: Vec<_> = scattered(200_000, EXACT).map(|n| topic(n).replace("temp", "pres")).collect();
    let mut group = criterion.benchmark_group("1M filters");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for (name, topics) in [("match", &topics), ("match, no exact filter", &others)] {
        let mut next = topics.iter().cycle();
        let mut out = Vec::with_capacity(16);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let topic = next.next().expect("cycles");
                out.clear();
                trie.matches(VHOST, topic, trie.topic_hash(VHOST, topic), &mut out);
                black_box(out.len())
            });
        });
    }
    let mut next = topics.iter().take(1).cycle();
    let mut out = Vec::with_capacity(16);
    group.bench_function("match, the same topic", |bencher| {
        bencher.iter(|| {
            let topic = next.next().expect("cycles");
            out.clear();
            trie.matches(VHOST, topic, trie.topic_hash(VHOST, topic), &mut out);
            black_box(out.len())
        });
    });
    let new: Vec<_> = scattered(100_000, EXACT).map(|n| topic(n + EXACT)).collect();
    let wildcards: Vec<_> = new.iter().map(|name| name.replace("temperature", "#")).collect();
    for (name, filters) in [("insert and remove, exact", &new), ("insert and remove, wildcard", &wildcards)] {
        let mut next = filters.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let filter = next.next().expect("cycles");
                let inserted = trie.insert(VHOST, filter, Subscriber(7), SubscriptionOptions::default());
                trie.remove(inserted.filter, Subscriber(7))
            });
        });
    }
}

fn growing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("100k");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    let filters: Vec<_> = (0..100_000).map(topic).collect();
    group.bench_function("filters inserted", |bencher| {
        bencher.iter_batched_ref(
            || Trie::new(KEY),
            |trie| {
                for (n, filter) in (0..).zip(&filters) {
                    trie.insert(VHOST, filter, Subscriber(n), SubscriptionOptions::default());
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("subscribers of one filter come and go", |bencher| {
        bencher.iter_batched_ref(
            || Trie::new(KEY),
            |trie| {
                for n in 0..100_000 {
                    trie.insert(VHOST, "all", Subscriber(n), SubscriptionOptions::default());
                }
                let filter = trie.find(VHOST, "all").expect("has subscribers");
                for n in 0..100_000 {
                    trie.remove(filter, Subscriber(n));
                }
            },
            BatchSize::LargeInput,
        );
    });
}

fn interest(criterion: &mut Criterion) {
    let mut interest = Interest::new(KEY);
    let before = resident_bytes();
    let change = Change { any: Some(true), durable: None };
    for n in 0..EXACT {
        interest.apply(ShardId(1), &Delta::new(KEY, VHOST, &filter(n), change));
    }
    report(
        "exact filters of another shard",
        EXACT,
        interest.memory(),
        resident_bytes().saturating_sub(before),
    );
    let topics: Vec<_> = scattered(200_000, EXACT).map(topic).collect();
    let mut group = criterion.benchmark_group("interest in 1M filters");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let look_up = |group: &mut criterion::BenchmarkGroup<'_, _>, interest: &Interest, name| {
        let mut next = topics.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let topic = next.next().expect("cycles");
                interest.lookup(VHOST, topic, KEY.hash(VHOST, topic.as_bytes()))
            });
        });
    };
    look_up(&mut group, &interest, "look-up, no wildcards");
    for n in EXACT..EXACT + WILDCARD {
        interest.apply(ShardId(2), &Delta::new(KEY, VHOST, &filter(n), change));
    }
    look_up(&mut group, &interest, "look-up, 5 % wildcards");
}

criterion_group!(benches, matching, growing, interest);
criterion_main!(benches);
