//! T1: durable, in order. T2: byte for byte, never replaced. T3: again. T4: read.

use tidings_core::audit::{AuditHash, AuditPosition, AuditSink, StoredAudit};
use tidings_core::{ErrorKind, Name};

use super::fixture::{Fixture, record, records, same_records};
use crate::case::{Case, Checked, broken, cases, holds, refused, same};
use crate::context::poll_times;

pub(super) const CASES: &[Case<dyn AuditSink>] = cases![
    t1_what_is_appended_is_read,
    t1_no_record_has_no_answer,
    t1_hundreds_of_records_in_one_call,
    t1_records_of_several_chains_in_one_call,
    t1_nothing_is_stored_behind_a_refused_record_of_its_chain,
    t1_an_outage_is_told_and_forgets_nothing[Outage],
    t2_records_are_kept_byte_for_byte,
    t2_a_record_of_256_kibibytes_is_kept,
    t2_a_record_is_never_replaced,
    t2_chains_differ_by_their_whole_name,
    t3_a_record_that_is_appended_again_is_taken,
    t3_records_that_are_appended_again_with_new_ones_are_taken,
    t3_a_dropped_append_can_be_repeated,
    t4_pages_yield_each_record_once,
    t4_a_page_goes_on_with_what_was_appended_since,
    t4_each_chain_is_in_order,
    t4_more_than_a_thousand_records_are_read_by_pages_of_any_size,
    t4_pages_of_many_bytes_are_whole,
    t4_a_position_of_another_sink_is_refused,
    restart_records_survive[Reopen],
    restart_positions_survive[Reopen],
];

async fn t1_what_is_appended_is_read(fixture: &Fixture) -> Checked {
    let chain = fixture.fresh("chain");
    same("records before", 0, fixture.chain(&chain).await?.len())?;
    fixture.append(records(&chain, 0..1)).await?;
    fixture.append(records(&chain, 1..5)).await?;
    same_records("the chain", &records(&chain, 0..5), &fixture.chain(&chain).await?)
}

async fn t1_no_record_has_no_answer(fixture: &Fixture) -> Checked {
    fixture.append(Vec::new()).await
}

/// More than a statement or a batch of a store takes.
async fn t1_hundreds_of_records_in_one_call(fixture: &Fixture) -> Checked {
    let chain = fixture.fresh("chain");
    fixture.append(records(&chain, 0..700)).await?;
    same_records("the chain", &records(&chain, 0..700), &fixture.chain(&chain).await?)
}

async fn t1_records_of_several_chains_in_one_call(fixture: &Fixture) -> Checked {
    let chains = [fixture.fresh("chain"), fixture.fresh("chain")];
    fixture.append((0..20).map(|n| record(&chains[n % 2], n as u64 / 2)).collect()).await?;
    for chain in &chains {
        same_records("a chain", &records(chain, 0..10), &fixture.chain(chain).await?)?;
    }
    Ok(())
}

/// A record stored behind a refused one would leave a gap in the chain, which looks like a deleted record.
async fn t1_nothing_is_stored_behind_a_refused_record_of_its_chain(fixture: &Fixture) -> Checked {
    let (chain, other) = (fixture.fresh("chain"), fixture.fresh("chain"));
    fixture.append(records(&chain, 0..2)).await?;
    let forged = StoredAudit::new(chain.clone(), 1, AuditHash::ZERO, AuditHash::ZERO, "forged");
    let call = [vec![record(&other, 0), forged, record(&other, 1)], records(&chain, 2..4)].concat();
    let sink = fixture.sink()?;
    let answers = fixture.within("answers", sink.append(call)).await?;
    same("answers to append", 5, answers.len())?;
    if answers[1].is_ok() {
        // The sink keeps it as a second record of the same number.
        return Ok(());
    }
    same("accepted records behind it", vec![false; 2], answers[3..].iter().map(Result::is_ok).collect())?;
    same_records("the chain", &records(&chain, 0..2), &fixture.chain(&chain).await?)?;
    fixture.append(records(&chain, 2..4)).await?;
    fixture.append(records(&other, 0..2)).await?;
    same_records("the chain later", &records(&chain, 0..4), &fixture.chain(&chain).await?)?;
    same_records("the other chain", &records(&other, 0..2), &fixture.chain(&other).await?)
}

async fn t1_an_outage_is_told_and_forgets_nothing(fixture: &Fixture) -> Checked {
    let chain = fixture.fresh("chain");
    fixture.append(records(&chain, 0..3)).await?;
    fixture.outage(true).await?;
    let sink = fixture.sink()?;
    let answers = fixture.within("an answer", sink.append(records(&chain, 3..6))).await;
    fixture.outage(false).await?;
    let answers = answers?;
    same("answers to append", 3, answers.len())?;
    for answer in answers {
        match answer {
            Err(error) if error.is_retryable() => {}
            other => return broken("a retryable error during an outage", format!("{other:?}")),
        }
    }
    fixture
        .eventually("an append after the outage", || async {
            let answers = sink.append(records(&chain, 3..6)).await;
            Ok(answers.iter().all(Result::is_ok).then_some(()))
        })
        .await?;
    same_records("the chain", &records(&chain, 0..6), &fixture.chain(&chain).await?)
}

/// Bytes that are no text, none, and hashes of all bits.
async fn t2_records_are_kept_byte_for_byte(fixture: &Fixture) -> Checked {
    let chain = fixture.fresh("chain");
    let (zero, ones) = (AuditHash::ZERO, AuditHash::new([0xff; 32]));
    let all = [
        StoredAudit::new(chain.clone(), 0, zero, ones, vec![0xff, 0, 0xc3, 0x28]),
        StoredAudit::new(chain.clone(), 1, ones, zero, Vec::new()),
        StoredAudit::new(chain.clone(), 2, zero, zero, "{ \"a\": 1.0,  \"a\": 2 }\n"),
    ];
    fixture.append(all.to_vec()).await?;
    same_records("the chain", &all, &fixture.chain(&chain).await?)
}

async fn t2_a_record_of_256_kibibytes_is_kept(fixture: &Fixture) -> Checked {
    let chain = fixture.fresh("chain");
    let bytes: Vec<u8> = (0..256_u32 << 10).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let large = StoredAudit::new(chain.clone(), 0, AuditHash::ZERO, AuditHash::ZERO, bytes);
    fixture.append(vec![large.clone(), record(&chain, 1)]).await?;
    same_records("the chain", &[large, record(&chain, 1)], &fixture.chain(&chain).await?)
}

async fn t2_a_record_is_never_replaced(fixture: &Fixture) -> Checked {
    let chain = fixture.fresh("chain");
    fixture.append(records(&chain, 0..3)).await?;
    let forged = StoredAudit::new(chain.clone(), 1, AuditHash::ZERO, AuditHash::ZERO, "forged");
    let sink = fixture.sink()?;
    let mut answers = fixture.within("answers", sink.append(vec![forged.clone()])).await?;
    same("answers to append", 1, answers.len())?;
    let was_taken = answers.remove(0).is_ok();
    let read = fixture.chain(&chain).await?;
    let originals: Vec<_> = read.iter().filter(|record| **record != forged).cloned().collect();
    same_records("the chain", &records(&chain, 0..3), &originals)?;
    holds(was_taken == read.contains(&forged), "a record that is taken is read, one that is refused is not", read)
}

async fn t2_chains_differ_by_their_whole_name(fixture: &Fixture) -> Checked {
    let chain = fixture.fresh("chain");
    let names = [chain.clone(), format!("{chain}-1").into(), chain.to_uppercase().into(), format!("{chain}/é ").into()];
    for (at, name) in (0..).zip(&names) {
        fixture.append(records(name, at..at + 1)).await?;
    }
    for (at, name) in (0..).zip(&names) {
        same_records("a chain", &records(name, at..at + 1), &fixture.chain(name).await?)?;
    }
    Ok(())
}

async fn t3_a_record_that_is_appended_again_is_taken(fixture: &Fixture) -> Checked {
    let chain = fixture.fresh("chain");
    fixture.append(records(&chain, 0..2)).await?;
    fixture.append(records(&chain, 1..2)).await?;
    fixture.append(records(&chain, 2..3)).await?;
    same_records("the chain", &records(&chain, 0..3), &fixture.chain(&chain).await?)
}

/// As after an answer that was lost.
async fn t3_records_that_are_appended_again_with_new_ones_are_taken(fixture: &Fixture) -> Checked {
    let chain = fixture.fresh("chain");
    fixture.append(records(&chain, 0..4)).await?;
    fixture.append(records(&chain, 2..7)).await?;
    same_records("the chain", &records(&chain, 0..7), &fixture.chain(&chain).await?)
}

/// Dropped after each number of polls.
async fn t3_a_dropped_append_can_be_repeated(fixture: &Fixture) -> Checked {
    for times in 0..5 {
        let chain = fixture.fresh("chain");
        let sink = fixture.sink()?;
        drop(poll_times(times, sink.append(records(&chain, 0..3))).await);
        fixture.append(records(&chain, 0..3)).await?;
        same_records("the chain", &records(&chain, 0..3), &fixture.chain(&chain).await?)?;
    }
    Ok(())
}

async fn t4_pages_yield_each_record_once(fixture: &Fixture) -> Checked {
    let chain = fixture.fresh("chain");
    fixture.append(records(&chain, 0..25)).await?;
    let (mut after, mut read) = (None, Vec::new());
    // Other cases may share the sink.
    loop {
        let page = fixture.page(after.as_ref(), 4).await?;
        if page.records.is_empty() {
            break;
        }
        read.extend(page.records.into_iter().filter(|record| record.chain == chain));
        after = Some(page.next);
    }
    same_records("the chain", &records(&chain, 0..25), &read)
}

async fn t4_a_page_goes_on_with_what_was_appended_since(fixture: &Fixture) -> Checked {
    let chain = fixture.fresh("chain");
    let chains = std::slice::from_ref(&chain);
    fixture.append(records(&chain, 0..3)).await?;
    let (first, after) = fixture.read_after(None, chains).await?;
    same_records("the first page", &records(&chain, 0..3), &first)?;
    // The position survives as its text.
    let after = after.map(|position| AuditPosition::new(position.as_str()));
    same("records at the end", 0, fixture.read_after(after.clone(), chains).await?.0.len())?;
    fixture.append(records(&chain, 3..5)).await?;
    let (second, _) = fixture.read_after(after, chains).await?;
    same_records("the second page", &records(&chain, 3..5), &second)
}

async fn t4_each_chain_is_in_order(fixture: &Fixture) -> Checked {
    let chains = [fixture.fresh("chain"), fixture.fresh("chain"), fixture.fresh("chain")];
    for round in 0..10 {
        for chain in &chains {
            fixture.append(records(chain, round * 2..round * 2 + 2)).await?;
        }
    }
    let (read, _) = fixture.read_after(None, &chains).await?;
    for chain in &chains {
        let came: Vec<_> = read.iter().filter(|record| record.chain == *chain).cloned().collect();
        same_records("a chain", &records(chain, 0..20), &came)?;
    }
    Ok(())
}

/// Reads a chain by pages, and returns its records.
async fn by_pages(fixture: &Fixture, chain: &Name, limit: usize) -> Checked<Vec<StoredAudit>> {
    let (mut after, mut read) = (None, Vec::new());
    loop {
        let page = fixture.page(after.as_ref(), limit).await?;
        if page.records.is_empty() {
            return Ok(read);
        }
        read.extend(page.records.into_iter().filter(|record| record.chain == *chain));
        after = Some(page.next);
    }
}

/// Reads more records than a store returns in one step, by the largest limit and by limits around a thousand.
async fn t4_more_than_a_thousand_records_are_read_by_pages_of_any_size(fixture: &Fixture) -> Checked {
    let chain = fixture.fresh("chain");
    for from in [0, 700] {
        fixture.append(records(&chain, from..from + 700)).await?;
    }
    for limit in [usize::MAX, 999, 1_000, 1_001] {
        let read = by_pages(fixture, &chain, limit).await?;
        same_records(&format!("the chain by pages of {limit}"), &records(&chain, 0..1_400), &read)?;
    }
    Ok(())
}

async fn t4_pages_of_many_bytes_are_whole(fixture: &Fixture) -> Checked {
    let chain = fixture.fresh("chain");
    let large = |seq: u64| {
        let small = record(&chain, seq);
        StoredAudit::new(chain.clone(), seq, small.prev, small.hash, vec![seq as u8; 256 << 10])
    };
    let all: Vec<_> = (0..20).map(large).collect();
    for part in all.chunks(5) {
        fixture.append(part.to_vec()).await?;
    }
    for limit in [usize::MAX, 3] {
        same_records("the chain", &all, &by_pages(fixture, &chain, limit).await?)?;
    }
    Ok(())
}

async fn t4_a_position_of_another_sink_is_refused(fixture: &Fixture) -> Checked {
    let (sink, foreign) = (fixture.sink()?, AuditPosition::new("of another sink"));
    let read = fixture.within("an answer", sink.read(Some(&foreign), 1)).await?;
    refused("a position of another sink", &[ErrorKind::Undecodable], read)
}

async fn restart_records_survive(fixture: &Fixture) -> Checked {
    let chain = fixture.fresh("chain");
    fixture.append(records(&chain, 0..300)).await?;
    drop(fixture.reopen(fixture.sink()?).await?);
    same_records("the chain", &records(&chain, 0..300), &fixture.chain(&chain).await?)?;
    fixture.append(records(&chain, 299..301)).await?;
    same_records("the chain", &records(&chain, 0..301), &fixture.chain(&chain).await?)
}

async fn restart_positions_survive(fixture: &Fixture) -> Checked {
    let chain = fixture.fresh("chain");
    fixture.append(records(&chain, 0..3)).await?;
    let (_, after) = fixture.read_after(None, std::slice::from_ref(&chain)).await?;
    drop(fixture.reopen(fixture.sink()?).await?);
    fixture.append(records(&chain, 3..5)).await?;
    let (read, _) = fixture.read_after(after, std::slice::from_ref(&chain)).await?;
    same_records("what was appended since", &records(&chain, 3..5), &read)
}
