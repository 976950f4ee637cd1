//! The log against a list in memory, over random histories.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Appends so many records, together.
    Append(u8, Vec<u16>),
    /// Trims to this share of what is there, in 1/16.
    Trim(u8, i64),
    /// Reads so many records from this share on.
    Read(u8, i64, usize),
    Commit(u8, i64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let partition = || 0..2_u8;
    let sizes = proptest::collection::vec(0..3000_u16, 0..20);
    let step = prop_oneof![
        4 => (partition(), sizes).prop_map(|(to, sizes)| Step::Append(to, sizes)),
        2 => (partition(), 0..=16_i64).prop_map(|(of, share)| Step::Trim(of, share)),
        3 => (partition(), 0..=18_i64, 0..30_usize)
            .prop_map(|(of, share, max)| Step::Read(of, share, max)),
        1 => (partition(), 0..100_i64).prop_map(|(of, offset)| Step::Commit(of, offset)),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..25)
}

#[derive(Default)]
struct Model {
    low: usize,
    sizes: Vec<usize>,
    commit: Option<Commit>,
}

impl Model {
    fn place(&self, share: i64) -> usize {
        let share = usize::try_from(share).unwrap();
        self.low + (self.sizes.len() - self.low) * share / 16
    }
}

fn offset(place: usize) -> Offset {
    Offset(i64::try_from(place).unwrap())
}

async fn check_step(log: &EmbeddedLog, model: &mut [Model; 2], step: &Step) {
    let group = GroupId("g".into());
    match step {
        Step::Append(to, sizes) => {
            let of = &mut model[usize::from(*to)];
            let target = Target::Partition(Partition(i32::from(*to)));
            let value = |size: &u16| record(vec![b'x'; usize::from(*size)]);
            let appends = sizes
                .iter()
                .map(|size| log.append(&topic("t"), target, value(size)));
            for answer in futures_util::future::join_all(appends).await {
                assert_eq!(answer.unwrap().offset, offset(of.sizes.len()));
                of.sizes.push(0);
            }
            let at = of.sizes.len() - sizes.len();
            let sizes = sizes.iter().copied().map(usize::from);
            of.sizes.splice(at.., sizes);
        }
        Step::Trim(partition, share) => {
            let of = &mut model[usize::from(*partition)];
            let to = of.place(*share);
            let before = [(Partition(i32::from(*partition)), offset(to))];
            log.trim(&topic("t"), &before).await.unwrap();
            of.low = to;
        }
        Step::Read(partition, share, max) => {
            let of = &model[usize::from(*partition)];
            let from = of.place(*share);
            let at = part("t", i32::from(*partition));
            let found = log.read(&at, offset(from), *max).await.unwrap();
            let found: Vec<_> = found
                .iter()
                .map(|r| (r.offset, r.record.value.as_ref().unwrap().len()))
                .collect();
            let all = of.sizes.iter().enumerate().skip(from).take(*max);
            let expected: Vec<_> = all.map(|(place, &size)| (offset(place), size)).collect();
            assert_eq!(found, expected);
        }
        Step::Commit(partition, to) => {
            let commit = Commit {
                offset: Offset(*to),
                metadata: "m".repeat(usize::try_from(*to).unwrap()),
            };
            let at = part("t", i32::from(*partition));
            log.commit_idle(&group, vec![(at, commit.clone())])
                .await
                .unwrap();
            model[usize::from(*partition)].commit = Some(commit);
        }
        Step::Reopen => {}
    }
    let marks = log.watermarks(&topic("t")).await.unwrap();
    let at = [part("t", 0), part("t", 1)];
    let commits = log.committed(&group, &at).await.unwrap();
    for ((marks, commit), of) in marks.iter().zip(commits).zip(&*model) {
        assert_eq!(
            (marks.low, marks.high),
            (offset(of.low), offset(of.sizes.len()))
        );
        assert_eq!(commit, of.commit);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_a_list_does(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut log = open(&dir);
            log.create_topic(&spec("t", 2)).await.unwrap();
            let mut model = [Model::default(), Model::default()];
            for step in &steps {
                if matches!(step, Step::Reopen) {
                    log.close(LIMIT).await.unwrap();
                    log = open(&dir);
                }
                check_step(&log, &mut model, step).await;
            }
            log.close(LIMIT).await.unwrap();
        });
    }
}
