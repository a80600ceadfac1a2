-- Dissects captures of rpmsg-bridge: RPMsg headers, name service and text, under link type 147 (USER0).
--
--   wireshark -X lua_script:rpmsg.lua capture.pcapng
--   tshark -X lua_script:rpmsg.lua -r capture.pcapng
--
-- or once, for good: copy it to the personal plugin folder (Help, About, Folders). docs/capture.md has the format.

local rpmsg = Proto("rpmsg", "RPMsg")

local NAME_SERVICE = 53
local HEADER, NS_LENGTH = 16, 40
local NS_FLAGS = { [0] = "create", [1] = "destroy" }

local fields = {
  guest = ProtoField.string("rpmsg.guest", "Guest"),
  endpoint = ProtoField.string("rpmsg.endpoint", "Endpoint"),
  direction = ProtoField.string("rpmsg.direction", "Direction"),
  src = ProtoField.uint32("rpmsg.src", "Source", base.DEC),
  dst = ProtoField.uint32("rpmsg.dst", "Destination", base.DEC),
  reserved = ProtoField.uint32("rpmsg.reserved", "Reserved", base.HEX),
  len = ProtoField.uint16("rpmsg.len", "Length", base.DEC),
  flags = ProtoField.uint16("rpmsg.flags", "Flags", base.HEX),
  data = ProtoField.bytes("rpmsg.data", "Data"),
  text = ProtoField.string("rpmsg.text", "Text"),
  ns_name = ProtoField.string("rpmsg.ns.name", "Name"),
  ns_addr = ProtoField.uint32("rpmsg.ns.addr", "Address", base.DEC),
  ns_flags = ProtoField.uint32("rpmsg.ns.flags", "Flags", base.DEC, NS_FLAGS),
}
rpmsg.fields = fields

local cut = ProtoExpert.new("rpmsg.malformed", "The header does not fit the message", expert.group.MALFORMED,
  expert.severity.ERROR)
rpmsg.experts = { cut }

-- GUEST/ENDPOINT, or GUEST for name service and what is for no endpoint.
local interface_name = Field.new("frame.interface_name")

-- Text is what has no control characters but those of a terminal, and is not empty.
local function as_text(range)
  local bytes = range:bytes():raw()
  if bytes:find("[%z\1-\6\14-\26\28-\31\127]") then return nil end
  return range:string(ENC_UTF_8)
end

local function summary(text)
  return (text:gsub("\27%[[%d;]*%a", ""):gsub("\r", "\\r"):gsub("\n", "\\n"):gsub("%c", "."))
end

local function name_service(buffer, pinfo, tree)
  local flags = buffer(36, 4):le_uint()
  -- Up to the first zero; a guest may have left it out.
  local name = buffer(0, 32):string(ENC_UTF_8):match("^%Z*")
  local verb = flags % 2 == 1 and "destroy" or "create"
  local part = tree:add(rpmsg, buffer(0, NS_LENGTH), "Name Service: " .. verb .. " " .. summary(name))
  part:add(fields.ns_name, buffer(0, 32), name)
  part:add_le(fields.ns_addr, buffer(32, 4))
  part:add_le(fields.ns_flags, buffer(36, 4))
  pinfo.cols.info:set(("name service: %s %s at %d"):format(verb, summary(name), buffer(32, 4):le_uint()))
end

function rpmsg.dissector(buffer, pinfo, tree)
  pinfo.cols.protocol:set("RPMsg")
  local name = interface_name()
  local guest, endpoint = tostring(name or ""):match("^([^/]*)/?(.*)$")
  local to_guest = pinfo.p2p_dir == P2P_DIR_SENT
  local direction = to_guest and "to guest" or "from guest"

  local top = tree:add(rpmsg, buffer())
  top:add(fields.guest, guest):set_generated()
  if endpoint ~= "" then top:add(fields.endpoint, endpoint):set_generated() end
  top:add(fields.direction, direction):set_generated()

  if buffer:len() < HEADER then
    top:add_proto_expert_info(cut)
    pinfo.cols.info:set("malformed: no header")
    return
  end
  local src, dst = buffer(0, 4):le_uint(), buffer(4, 4):le_uint()
  local length = buffer(12, 2):le_uint()
  top:add_le(fields.src, buffer(0, 4))
  top:add_le(fields.dst, buffer(4, 4))
  top:add_le(fields.reserved, buffer(8, 4))
  top:add_le(fields.len, buffer(12, 2))
  top:add_le(fields.flags, buffer(14, 2))
  top:append_text((", %d > %d, %d bytes, %s"):format(src, dst, length, direction))
  -- Addresses of the two sides are numbered apart: the columns say whose they are.
  pinfo.cols.src:set((to_guest and "host:" or guest .. ":") .. src)
  pinfo.cols.dst:set((to_guest and guest .. ":" or "host:") .. dst)

  local label = endpoint ~= "" and endpoint or guest
  if HEADER + length > buffer:len() then
    top:add_proto_expert_info(cut)
    pinfo.cols.info:set(("%s: malformed: %d bytes, %d are there"):format(label, length, buffer:len() - HEADER))
    return
  end
  pinfo.cols.info:set(("%s: %d bytes"):format(label, length))
  if length == 0 then return end
  local payload = buffer(HEADER, length)
  if dst == NAME_SERVICE and length == NS_LENGTH then
    name_service(payload:tvb(), pinfo, top)
    return
  end
  top:add(fields.data, payload)
  local text = as_text(payload)
  if text ~= nil then
    top:add(fields.text, payload, text)
    pinfo.cols.info:append(": " .. summary(text))
  end
end

DissectorTable.get("wtap_encap"):add(wtap.USER0, rpmsg)
