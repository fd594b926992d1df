-- How far back saved outcomes are looked for: the longest that any server of this installation remembers a key. A server
-- raises it before it accepts its first request; the others read it again each minute, and never look back less than 25
-- hours, so none can miss an outcome that a longer memory has saved. Whoever upgrades may have outcomes of up to 7 days.
alter table installation add column key_horizon interval not null default '7 days';
alter table installation alter column key_horizon set default '25 hours';
