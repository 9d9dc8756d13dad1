//! What an operator should know about the settings of a PostgreSQL server: writes that it may lose, a pooler
//! that the settings do not mention, and limits on connections.

use diesel::{
    QueryableByName,
    dsl::sql,
    select, sql_query,
    sql_types::{Bool, Integer, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::postgres::setting;
use crate::database::{DatabaseError, postgres::PostgresPool, postgres_connect::UNSAFE_SYNCHRONOUS_COMMIT};

/// How often each connection is asked for its process. A pooler may at first give a different process to each
/// connection, as the server does.
const POOLER_PROBES: usize = 4;

/// Returns a warning for each of these settings that does not fit the service.
pub(super) async fn server_warnings(pool: &PostgresPool) -> Result<Vec<String>, DatabaseError> {
    let mut connection = pool.get().await?;
    let mut warnings = durability_warnings(&mut connection).await?;
    if !pool.is_pooled() {
        warnings.extend(connection_limit_warning(&mut connection, pool.connections_max()).await?);
        match pooler_warning(pool).await {
            // The probe needs a few connections at once.
            Err(error) if error.has_no_free_connection() => {}
            warning => warnings.extend(warning?),
        }
    }
    Ok(warnings)
}

/// The limits on the connections of a role. -1 means that there is none.
#[derive(QueryableByName)]
struct ConnectionLimits {
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Integer)]
    of_role: i32,
    #[diesel(sql_type = Text)]
    database: String,
    #[diesel(sql_type = Integer)]
    of_database: i32,
    /// Without the connections that are reserved for others.
    #[diesel(sql_type = Integer)]
    of_server: i32,
    /// A superuser is bound only by the limit of the server, without what is reserved for superusers.
    #[diesel(sql_type = Bool)]
    is_superuser: bool,
}

const CONNECTION_LIMITS: &str = "SELECT quote_ident(rolname) AS role, rolconnlimit AS of_role, \
     quote_ident(datname) AS database, datconnlimit AS of_database, rolsuper AS is_superuser, \
     current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer \
     - coalesce(current_setting('reserved_connections', true)::integer, 0) AS of_server \
     FROM pg_roles, pg_database WHERE rolname = session_user AND datname = current_database()";

/// Returns a warning if the server admits fewer connections than this instance alone opens.
async fn connection_limit_warning(
    connection: &mut AsyncPgConnection,
    connections_max: usize,
) -> Result<Option<String>, DatabaseError> {
    let limits: ConnectionLimits = sql_query(CONNECTION_LIMITS).get_result(connection).await?;
    if limits.is_superuser {
        return Ok(None);
    }
    let ConnectionLimits { role, database, .. } = limits;
    let smallest = [
        (
            limits.of_role,
            format!("the limit of the role {role}"),
            format!("ALTER ROLE {role} CONNECTION LIMIT {connections_max}"),
        ),
        (
            limits.of_database,
            format!("the limit of the database {database}"),
            format!("ALTER DATABASE {database} CONNECTION LIMIT {connections_max}"),
        ),
        (limits.of_server, "max_connections of the server".to_owned(), "max_connections".to_owned()),
    ]
    .into_iter()
    .filter_map(|(limit, what, remedy)| Some((usize::try_from(limit).ok()?, what, remedy)))
    .min();
    Ok(smallest.filter(|(limit, ..)| *limit < connections_max).map(|(limit, what, remedy)| {
        format!(
            "PostgreSQL admits {limit} connections ({what}), but this instance opens up to {connections_max}: calls \
             wait for a free connection, and fail after database.acquire-timeout; raise the limit ({remedy}), or lower \
             database.pool-size"
        )
    }))
}

/// Returns a warning if a pooler passes the connections to other clients.
/// Several connections that are open at the same time then share a process of the server, or change it.
async fn pooler_warning(pool: &PostgresPool) -> Result<Option<String>, DatabaseError> {
    let mut connections = [pool.connect().await?, pool.connect().await?, pool.connect().await?];
    // The process that served each connection first.
    let mut processes: Vec<i32> = Vec::new();
    let mut is_shared = false;
    for _ in 0..POOLER_PROBES {
        for (number, connection) in connections.iter_mut().enumerate() {
            let process: i32 = select(sql::<Integer>("pg_backend_pid()")).get_result(connection).await?;
            if let Some(first) = processes.get(number) {
                is_shared |= *first != process;
            } else {
                is_shared |= processes.contains(&process);
                processes.push(process);
            }
        }
    }
    let warning = "database.pooler is false, but a pooler in transaction mode passes the connections to other \
                   clients: they get the session settings of this service, and it gets theirs; set \
                   database.pooler to true (docs/pgbouncer.md)";
    Ok(is_shared.then(|| warning.to_owned()))
}

/// Returns a warning for each setting with which an acknowledged write can be lost. The pool raises
/// `synchronous_commit` on its own connections, so a warning about it appears only behind a pooler, where the
/// pool changes no session setting.
async fn durability_warnings(connection: &mut AsyncPgConnection) -> Result<Vec<String>, DatabaseError> {
    let mut warnings = Vec::new();
    for (name, unsafe_values, loss) in [
        ("fsync", ["off"].as_slice(), "a crash of the machine can destroy the database"),
        ("full_page_writes", &["off"], "a crash of the machine can destroy pages"),
        (
            "synchronous_commit",
            &UNSAFE_SYNCHRONOUS_COMMIT,
            "a crash of the machine can lose users whose registration was acknowledged",
        ),
    ] {
        let value = setting(connection, name).await?;
        if unsafe_values.contains(&value.as_str()) {
            warnings.push(format!("PostgreSQL runs with {name} = {value}: {loss}"));
        }
    }
    Ok(warnings)
}
