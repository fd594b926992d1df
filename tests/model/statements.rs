//! Runs a claim as the program does: one statement that creates a message, or a transaction of several for every other write.

use domain::idempotency::MAX_TTL;
use sqlx::{AssertSqlSafe, PgConnection, Row, postgres::types::PgInterval};
use uuid::Uuid;

use crate::{
    process::{Answer, Point, Request},
    shipped::{Claim, Statements},
};

/// The tenant and the application of all messages; `stops.sql` makes them.
const TENANT: Uuid = Uuid::from_u128(0x7000_8000_0000_0000_0001);
const APPLICATION: Uuid = Uuid::from_u128(0x7000_8000_0000_0000_0002);

/// Runs the claim of one request to its end.
pub(crate) async fn run(claim: &Claim, request: &Request, connection: &mut PgConnection) -> Result<Answer, sqlx::Error> {
    match &claim.statements {
        Statements::Call(call) => publish(call, request, connection).await,
        Statements::Each { lock, look_up, save } => {
            sqlx::raw_sql("begin").execute(&mut *connection).await?;
            let answer = write([lock, look_up, save], request, connection).await?;
            let end = if matches!(answer, Answer::Executed(_)) { "commit" } else { "rollback" };
            sqlx::raw_sql(end).execute(connection).await?;
            Ok(answer)
        }
    }
}

/// The advisory lock of a key.
fn lock_of(key: Uuid) -> i64 {
    i64::try_from(key.as_u64_pair().0 >> 8).expect("56 bits are no sign")
}

/// The columns of sends that have ended: there are none.
fn none<T>() -> [T; 0] {
    []
}

/// Creates one message that nobody gets, in a batch of its own.
async fn publish(call: &str, request: &Request, connection: &mut PgConnection) -> Result<Answer, sqlx::Error> {
    let horizon = PgInterval { months: 0, days: 0, microseconds: 25 * 3600 * 1_000_000 };
    let new = sqlx::query(AssertSqlSafe(call)).bind([request.id]).bind([TENANT]).bind([APPLICATION]);
    let new = new.bind(["model.ran"]).bind([None::<&str>]).bind([None::<&str>]).bind([None::<&str>]);
    let new = new.bind([b"{}".as_slice()]).bind(["application/json"]).bind([None::<f64>]).bind(none::<&str>());
    let new = new.bind([request.key]).bind([request.fingerprint]).bind([request.ttl.as_secs_f64()]).bind([true]);
    let new = new.bind([None::<Uuid>]).bind([None::<Uuid>]).bind([Uuid::nil()]);
    let new = new.bind([lock_of(request.key)]).bind([None::<i64>]).bind([None::<i64>]);
    let owed = new.bind([APPLICATION]).bind([1_i64]).bind(none::<i32>()).bind(none::<Uuid>()).bind(none::<bool>());
    let owed = owed.bind(none::<i32>()).bind(none::<i64>()).bind(none::<Uuid>());
    let batch = owed.bind(Uuid::nil()).bind(30.0).bind(horizon).bind(request.is_rerun);
    let sends = batch.bind(none::<Uuid>()).bind(none::<Uuid>()).bind(none::<i32>()).bind(none::<Uuid>()).bind(none::<i16>());
    let sends = sends.bind(none::<Uuid>()).bind(none::<i16>()).bind(none::<i16>()).bind(none::<i16>()).bind(none::<i32>());
    let sends = sends.bind(none::<&[u8]>()).bind(none::<&str>()).bind(none::<f64>()).bind(none::<bool>()).bind(none::<i16>());
    let line = sends.fetch_optional(connection).await?;
    let Some(line) = line else { return Ok(Answer::Executed(request.id)) };
    let reference = |line: &sqlx::postgres::PgRow| line.try_get::<Uuid, _>("ref");
    Ok(match line.try_get::<i16, _>("outcome!")? {
        1 => Answer::Busy,
        // A hit that points at the request's own id is the end of a run whose end was lost.
        4 if reference(&line)? == request.id => Answer::Executed(request.id),
        4 => Answer::Replay(reference(&line)?),
        5 => Answer::Mismatch,
        10 => Answer::Executed(request.id),
        other => panic!("outcome {other} is not of this model"),
    })
}

/// Everything of [`Statements::Each`] inside its transaction. The effect is a row.
async fn write(statements: [&String; 3], request: &Request, connection: &mut PgConnection) -> Result<Answer, sqlx::Error> {
    let [lock, look_up, save] = statements;
    let lock = sqlx::query_scalar::<_, bool>(AssertSqlSafe(lock.as_str())).bind(lock_of(request.key));
    let is_ours = lock.fetch_one(&mut *connection).await?;
    stop(Point::LookUp, connection).await?;
    let found = sqlx::query(AssertSqlSafe(look_up.as_str())).bind(request.key).bind(MAX_TTL.as_secs_f64());
    if let Some(row) = found.fetch_optional(&mut *connection).await? {
        let is_same = row.try_get::<Uuid, _>("fingerprint")? == request.fingerprint;
        let saved = Uuid::from_slice(row.try_get("answer")?).expect("what was saved");
        return Ok(if is_same { Answer::Replay(saved) } else { Answer::Mismatch });
    }
    if !is_ours {
        return Ok(Answer::Busy);
    }
    stop(Point::Effect, connection).await?;
    sqlx::raw_sql("savepoint effect").execute(&mut *connection).await?;
    sqlx::query("insert into model.effect (id, k) values ($1, $2)").bind(request.id).bind(request.key).execute(&mut *connection).await?;
    sqlx::raw_sql("release savepoint effect").execute(&mut *connection).await?;
    stop(Point::Record, connection).await?;
    let mut saved = sqlx::query(AssertSqlSafe(save.as_str()));
    for column in columns_of_parameters(save) {
        saved = match column {
            "k" => saved.bind(request.key),
            "tenant_id" => saved.bind(TENANT),
            "fingerprint" => saved.bind(request.fingerprint),
            "fingerprint_version" => saved.bind(1_i16),
            "status" => saved.bind(201_i16),
            "expires_at" => saved.bind(request.ttl.as_secs_f64()),
            "answer" => saved.bind(request.id.as_bytes().to_vec()),
            other => panic!("the shipped record has a column that the model does not know: {other}"),
        };
    }
    saved.execute(&mut *connection).await?;
    stop(Point::Commit, connection).await?;
    Ok(Answer::Executed(request.id))
}

async fn stop(point: Point, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select model.stop($1)").bind(point.number()).execute(connection).await.map(drop)
}

/// The columns into which `insert into … (…) values (…)` puts its parameters, in their order; each value has at most one.
fn columns_of_parameters(insert: &str) -> Vec<&str> {
    let (columns, values) = insert.split_once("values").expect("an insert of values");
    let columns = columns.split_once('(').and_then(|(_, rest)| rest.split_once(')')).expect("a list of columns").0;
    let mut placed: Vec<(u32, &str)> = columns
        .split(',')
        .zip(values.split(','))
        .filter_map(|(column, value)| {
            let digits: String = value.split_once('$')?.1.chars().take_while(char::is_ascii_digit).collect();
            Some((digits.parse().expect("the number of a parameter"), column.trim()))
        })
        .collect();
    placed.sort_unstable();
    placed.into_iter().map(|(_, column)| column).collect()
}
