-- A page of the messages of one application that carry one key, upwards from p_first or downwards from p_end, which is not in it.
-- Its order must come from the index message_of_key, so the key is compared as part of a row, not for equality: a key that is known to
-- be one makes an order by id alone of it, which the planner also gets from the list of all messages, and then it reads that to
-- its end in search of a key that is rarer than it thinks.
create function messages_of_key_v1(
  p_application uuid, p_message_key text, p_is_up boolean, p_first uuid, p_end uuid, p_channel text, p_event_types text[], p_tag text, p_limit bigint
) returns setof message language plpgsql stable as $$
begin
  if p_is_up then
    return query
      select * from message where application_id = p_application and message_key is not null
          and (message_key, id) >= (p_message_key, p_first) and (message_key, id) < (p_message_key, p_end)
          and (p_channel is null or p_channel = any (channels)) and (p_event_types is null or event_type = any (p_event_types))
          and (p_tag is null or coalesce(particulars -> 'tags' ? p_tag, false))
        order by message_key, id limit p_limit;
  else
    return query
      select * from message where application_id = p_application and message_key is not null
          and (message_key, id) >= (p_message_key, p_first) and (message_key, id) < (p_message_key, p_end)
          and (p_channel is null or p_channel = any (channels)) and (p_event_types is null or event_type = any (p_event_types))
          and (p_tag is null or coalesce(particulars -> 'tags' ? p_tag, false))
        order by message_key desc, id desc limit p_limit;
  end if;
end
$$;
