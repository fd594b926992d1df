  -- WRONG: the lock and the look-up in one statement share a snapshot, which is older than the lock.
  with claimed as materialized (
    select t.n, t.k, t.fingerprint, t.l is null or pg_try_advisory_xact_lock(t.l) as is_ours
      from unnest(p_k, p_fingerprint, p_lock) with ordinality t(k, fingerprint, l, n)
  )
  select array_agg((case when not c.is_ours then 1 when i.k is null then 0 when i.fingerprint <> c.fingerprint then 5 when i.status = 409 then 9 else 4 end)::smallint order by c.n),
      array_agg(i.ref order by c.n)
    into v_state, v_ref
    from claimed c left join lateral (select * from idempotency i
      where c.is_ours and i.k = c.k and i.created_at > now() - p_horizon and i.created_at < now() + interval '1 hour' and i.expires_at > now() offset 0) i on true;

