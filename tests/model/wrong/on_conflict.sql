  -- WRONG: the record itself is the claim, after a look-up. It waits for whoever has an uncommitted one; and a partitioned
  -- table can have a unique index on k only within each partition.
  perform model.stop(2);
  select array_agg((case when i.k is null then 0 when i.fingerprint = t.fingerprint then 4 else 5 end)::smallint order by t.n), array_agg(i.ref order by t.n)
    into v_state, v_ref
    from unnest(p_k, p_fingerprint) with ordinality t(k, fingerprint, n)
      left join idempotency i on i.k = t.k and i.created_at > now() - p_horizon and i.expires_at > now();
  with claimed as (
    insert into idempotency (k, tenant_id, fingerprint, status, expires_at, ref)
      select t.k, t.tenant, t.fingerprint, 202, now() + make_interval(secs => t.ttl), t.id
        from unnest(p_k, p_tenant, p_fingerprint, p_ttl, p_id, v_state) t(k, tenant, fingerprint, ttl, id, state) where t.k is not null and t.state = 0
      on conflict do nothing returning k
  )
  select array_agg((case when t.state <> 0 or t.k is null or c.k is not null then t.state else 1 end)::smallint order by t.n)
    into v_state from unnest(p_k, v_state) with ordinality t(k, state, n) left join claimed c on c.k = t.k;

