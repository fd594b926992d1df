-- Forgets the webhooks of which no copy will come: once a day is enough.
delete from webhook_seen where forget_after < now();
