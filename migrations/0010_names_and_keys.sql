-- A key counts on PUT as well, unless a tenant has said which methods it counts on.
alter table idempotency_policy add column covers_put boolean;
update idempotency_policy set covers_put = false where covers_patch is not null;

-- These names are refused from now on, because URLs resolve them away: no path reaches such an event type any more.
update event_type set is_archived = true, updated_at = now() where name in ('.', '..') and not is_archived;
