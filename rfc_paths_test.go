package adit_test

var rfcAH = []rfcRow{
	{id: "35", what: "IPv4 under the ICV: mutable fields as zero, immutable options kept, others zeroed whole, a source route as at its end", rfc: "4302 3.3.3.1.1, appendix A1",
		tests: "ah TestRFC4302_IPv4MutableFields TestRFC4302_IPv4OptionsImmutableAndMutable TestRFC4302_MutableOptionsKeepTheirLength TestRFC4302_IPv4SourceRouteIsSignedAsAtItsEnd TestICVOfAPacketWrittenOut TestEveryBitFlip test/ahwire TestRootRFC4302_3_3_3_1_ICVSurvivesTheWire test/oracle TestScapyAgreesOnAH TestScapyAgreesWithTheGateway dataplane TestRFC4302_3_3_3_MutableFieldsMayChange"},
	{id: "36", what: "IPv6 under the ICV: class, label and hop limit as zero, options by their bit, a routing header as at its end; an unknown extension header is dropped; where AH stands", rfc: "4302 3.1.1, 3.3.3.1.2, appendix A2",
		tests: "ah TestRFC4302_IPv6MutableFields TestRFC4302_IPv6OptionsByTheirBit TestRFC4302_IPv6RoutingHeaderIsSignedAsAtItsEnd TestRFC4302_MalformedAndUnknownIPv6Extensions internal/mmsg TestRFC4302_3_3_3_1_2_IPv6HeadersAreMadeAgain internal/packet TestSetProtocolFollowsTheExtensionHeaders test/ahwire TestRootRFC4302_3_3_3_1_ICVSurvivesTheWire test/oracle TestScapyAgreesOnAH TestScapyAgreesWithTheGateway fuzz FuzzWholeIPv6"},
	{id: "37", what: "AH's length field, and padding to 4 bytes or, behind IPv6, 8, under the ICV", rfc: "4302 2.2, 2.6, 3.3.3.2.1",
		tests: "ah TestRFC4302_LengthAndPadding TestRFC4302_PaddingThatVerifyTakes TestGMACOfAPacketWrittenOut",
		but:   "behind IPv4 the padding of IPv6 is taken too: Linux sends it"},
	{id: "38", what: "no AH through NAT: refused, and why", rfc: "4302 3.3.3.1; 3715 2.1",
		tests: "config TestBadFilesAreRefusedWithTheirPlace/ah-nat TestBadFilesAreRefusedWithTheirPlace/ah-encap-udp TestBadFilesAreRefusedWithTheirPlace/ah-esp-encap-udp"},
}

var rfcNAT = []rfcRow{
	{id: "39", what: "ESP in UDP on one pair of ports; the UDP checksum may be zero over IPv4, and nobody depends on it", rfc: "3948 2.1; 6935; 6936",
		tests: "natt TestRFC3948_2_1_ZeroUDPChecksumIsReceived TestRFC3948_2_1_UDPChecksumIsComputed TestRFC7296_2_11_AnswersLeaveWhereTheRequestCame test/ike TestRootRFC7296_2_23_NATIsFoundAndKeptOpen test/roam TestRootCR25_WhatArrivesOnPort4500",
		but:   "checksums are computed, not zero (2.1 has a SHOULD): zero ones would switch segmentation offload off at both ends"},
	{id: "40", what: "on port 4500, four zero bytes are IKE, one byte 0xFF is a keepalive and no sign of life, and what is too short is dropped", rfc: "3948 2.2, 2.3, 4",
		tests: "natt TestCR25_Demux dataplane TestCR25_WhatArrivesOnPort4500 TestRFC3948_2_2_IKEGoesToItsInbox TestFullIKEInboxIsCounted TestRFC3948_4_KeepaliveIsNoSignOfLife test/roam TestRootCR25_WhatArrivesOnPort4500 fuzz FuzzNATTClassify",
		but:   "where no peer is keyed by IKE, it is counted (`InNoIKE`) and dropped"},
	{id: "41", what: "a keepalive is one byte 0xFF, from behind the NAT only, when nothing else was sent for 20 s", rfc: "3948 2.3, 4",
		tests: "natt TestRFC3948_2_3_KeepaliveIsOneOctetFF dataplane TestRFC3948_4_KeepalivesOnlyFromBehindTheNAT TestKeepalivesOfIdleSAs TestDummyPutsOffTheKeepalive ike TestRFC3948_4_IdleIKESAKeepsItsNATOpen natt TestRFC3948_2_3_IKEKeepalive test/ike TestRootRFC7296_2_23_NATIsFoundAndKeptOpen config TestPeerStaticAndBehindNAT TestGoodFilesAreReadAsTheyAreMeant/behind-nat"},
	{id: "42", what: "ESP with and without UDP is taken at any time; IKE is taken from any port, and answered there, from where it was asked", rfc: "7296 2.11, 2.23",
		tests: "dataplane TestRFC7296_2_23_BothEncapsulationsAtAnyTime TestCR25_WhatArrivesOnPort4500 natt TestRFC7296_2_11_AnswersLeaveWhereTheRequestCame test/ike TestRootRFC7296_2_23_NATIsFoundAndKeptOpen TestRootIKEAnswersFromTheAddressItWasAskedAt config TestListenRawAllowed",
		but:   "with manual keys the file says where a NAT is. `raw: off`, or a missing privilege, leaves ESP without UDP unheard"},
	{id: "43", what: "a peer is followed to where its newest authentic packet came from, never to where a replay came from; not from behind a NAT, nor with MOBIKE", rfc: "7296 2.23",
		tests: "dataplane TestRFC7296_2_23_PeerIsWhereItsNewestPacketCameFrom TestRFC7296_2_23_OldPacketsNeverMoveThePeer TestRoamTheNewestOfARunDecides TestRoamWhatIsNeverFollowed TestRoamFlapLimit TestRFC4555_OnlyIKEMovesAPeer ike TestRFC4555_3_5_TheInitiatorMoves TestRFC4555_3_7_NothingGoesToAnUntriedAddress TestRFC7296_2_23_NATRebinds test/swan TestRootRFC4555_AditMoves test/roam TestRootNATRebindingCostsAtMostOneRoundTrip TestRootOffPathReplayNeverMovesThePeer config TestPeerStaticAndBehindNAT",
		but:   "the newest of one SA: numbers of two SAs of a peer cannot be compared, so one packet that was held back can move it once, until its next. `static: true` keeps a peer where it is"},
	{id: "44", what: "in tunnel mode the inner source is checked; two peers with one inner address behind two NATs do not get each other's packets", rfc: "3948 5.1; 4301 5.2",
		tests: "dataplane TestRFC3948_5_1_SameInnerAddressBehindTwoNATs TestCR22_InnerPacketOutsideTheSelectors test/roam TestRootSeveralGatewaysBehindNATs",
		but:   "by policy: the address is the first one's. IKE assigns no addresses here (RFC 7296 2.19)"},
	{id: "45", what: "in transport mode TCP and UDP sums are put right from the original addresses; in tunnel mode they stay as they are, and are not called good", rfc: "3948 3.1.2; 7296 2.23.1",
		tests: "dataplane TestRFC3948_3_1_2_ChecksumsBehindNAT TestRFC3948_3_1_2_BrokenInnerChecksumsStayBroken internal/packet TestRFC1624_ReplaceInChecksum TestSetECNKeepsABrokenChecksumBroken internal/tun TestCoalescerBadFirstPacketIsLeftAlone TestVnetWrites config TestGoodFilesAreReadAsTheyAreMeant/transport-nat TestMirrorOfOriginalAddresses ike TestRFC7296_2_23_1_TransportModeBehindNAT",
		but:   "with manual keys the original addresses stand in the file; with IKE they are those of the traffic selectors"},
	{id: "46", what: "two transport mode peers behind one NAT, with the same selectors: handled or refused", rfc: "3948 5.2",
		tests: "dataplane TestRFC3948_5_2_TwoTransportModePeersBehindOneNAT spd TestShadowedNamesTheFirstPolicyThatCoversAll",
		but:   "refused: the first policy has the NAT's address, `adit check` says that the second one never matches, and its packets are dropped"},
}

var rfcPath = []rfcRow{
	{id: "47", what: "DF can be copied, set or cleared for each SA", rfc: "4301 8.1",
		tests: "dataplane TestRFC4301_8_1_DFOfEveryModeAndInnerPacket TestOuterTrafficClassAndDF TestOuterDFYieldsWhereTheTUNPromisesMoreThanThePath natt TestRootDFDecidesOverTheMTU",
		but:   "a copied DF yields for inner packets of up to 1280 bytes where the path takes less: the TUN cannot promise less, and they would vanish. With `set` that holds for IPv6 inside"},
	{id: "48", what: "ICMP that nobody has authenticated: believed or not, by configuration; matched with the SA that it quotes, checked, never below 576 or 1280", rfc: "4301 6.1.1, 8.2",
		tests: "dataplane TestRFC4301_8_2_ICMPErrorsAreChecked TestRFC4301_8_2_QuotedNumbersWereSent TestRFC4301_6_1_1_ICMPCanBeIgnored TestRFC1191_3_ICMPOnlyLowers TestCI01_ICMPErrorsAreLimited TestRFC4301_8_2_InnerMTUIsExact sad TestMaxInnerIsExact TestRFC8201_4_NothingBelow1280OverIPv6 internal/rawip TestRootICMPOnlyErrorsAboutSentPackets test/mtu TestRootForgedICMPChangesNothing config TestGoodFilesAreReadAsTheyAreMeant/icmp",
		but:   "one switch, for the two messages about lengths; all other types from the outside are ignored always. A message that does not quote up to the sequence number is not believed; probes inside the SA find what it would have said"},
	{id: "49", what: "too long for the path: Packet Too Big with the real MTU, or fragments before or after, by family and DF; what was learned ages", rfc: "4301 8.2.1, 8.2.2; 1191; 8201 4",
		tests: "dataplane TestRFC4301_8_TooLongForThePath TestRFC4301_8_2_InnerMTUIsExact TestSuperpacketTooLongForThePath TestRFC4301_8_2_WholePacketsThatAreTooLongAreAnswered TestRFC4301_7_WholePacketsAreCut TestRFC4443_2_4_TooBigMessagesAreLimited TestRFC8201_4_PathMTUAges internal/packet TestRFC1191_RFC4443_3_2_TooBig sad TestRFC1191_6_3_WhatWasLearnedAges test/mtu TestRootUDPSenderHearsTheInnerMTU TestRootTCPGoesOnWhenThePathBecomesNarrow TestRootTunnelOver1280Bytes fuzz FuzzFragments",
		but:   "`df: set` makes \"after\" \"before\", because an outer packet with DF cannot be cut. The message's source is the packet's destination and not the gateway (RFC 1812 4.3.2.4): the kernel drops what comes in from its own addresses"},
	{id: "50", what: "inner fragments without ports, where policies have ports: by state, or dropped; any ports always; overlaps and tiny ones dropped", rfc: "4301 7.1-7.4; 1858; 5722",
		tests: "dataplane TestRFC4301_7_1_AnyPortsCarryFragmentsInAnyOrder TestRFC4301_7_2_OpaqueTakesFragmentsInTheOrderOfTheSPD TestRFC4301_7_3_FragmentsFollowTheirInitialOne TestRFC4301_7_3_OneSAsFragmentsDoNotRideOnAnothers TestRFC4301_7_4_NoFragmentIsBypassedThatPortsMayProtect TestCP06_WhatPassesMakesUpPacketsThatPolicyAllows TestRFC1858_RFC5722_BadFragmentsAndTheRestOfTheirDatagramAreDropped spd TestCP06_NonInitialFragmentsMatchNoPorts TestRFC4301_7_ClaimsMissNoPolicy test/site TestRootRFC4301_7_InnerFragmentsFollowTheirPorts",
		but:   "NON_FIRST_FRAGMENTS_ALSO (RFC 7296 1.3.1) is not negotiated: each end keeps state by itself"},
	{id: "51", what: "transport mode takes whole datagrams, and cuts only behind ESP and AH", rfc: "4303 3.3.4; 4302 3.3.4",
		tests: "dataplane TestRFC4303_3_3_4_TransportModeTakesWholeDatagramsOfItsEnds TestRFC4301_7_WholePacketsAreCut config TestBadFilesAreRefusedWithTheirPlace/transport-fragment-before"},
}

var rfcICMP = []rfcRow{
	{id: "52", what: "an ICMP error from a router that no selector has goes into the SA of the return traffic, and comes out of it by what it quotes; if not, it is dropped and audited", rfc: "4301 6.2",
		tests: "dataplane TestRFC4301_6_2_OutboundErrorTakesTheSAOfTheReturnTraffic TestRFC4301_6_2_OutboundErrorAboutOtherTrafficIsDiscarded TestRFC4301_6_2_QuotedPortsAreReversed TestRFC4301_6_2_InboundErrorIsTakenByItsQuote TestRFC4301_6_2_InboundErrorAboutOtherTrafficIsDropped TestRFC4301_6_2_ThroughAHBundlesAndTransportMode test/site TestRootRFC4301_6_2_ErrorsOfARouterOutsideThePolicyCrossTheTunnel fuzz FuzzQuotedFlow"},
	{id: "53", what: "what an error quotes can be checked also where the error itself fits", rfc: "4301 6.2",
		tests: "dataplane TestRFC4301_6_2_CheckQuotedOfWhatFitsTheSelectors config TestGoodFilesAreReadAsTheyAreMeant/icmp"},
}

var rfcTunnel = []rfcRow{
	{id: "54", what: "the inner header is unchanged but for TTL, where it is forwarded, and ECN; the outer one is made anew, without options, with an identification where it may be cut", rfc: "4301 5.1.2.1; 6864 4.3",
		tests: "dataplane TestRFC4301_5_1_2_OuterHeaderIsConstructed TestRFC6864_OuterPacketsThatMayBeCutHaveIdentifications TestRFC4301_5_1_2_InnerHeaderUnchanged internal/packet TestSetECNKeepsEverythingElse test/site TestRootTTLFallsByTwoAndTheOuterOneIsFresh",
		but:   "the outer headers of ESP are the kernel's, whose identifications are its own; those of AH are adit's"},
	{id: "55", what: "ECN: copied or cleared outward, by configuration; inward the sixteen cells", rfc: "6040 4.1, 4.2",
		tests: "dataplane TestRFC6040_4_1_EncapsulationOfEveryCodepoint TestRFC6040_4_2_DecapsulationCells TestRFC6040_4_2_DecapsulationUnderAH TestRFC4303_4_AuditEventsHaveTheirFields",
		but:   "the combination that drops is counted and audited (`InECN`); unusual ones that pass are not logged, because only drops have a counter and an audit"},
	{id: "56", what: "DSCP: copied outward or fixed, never inward", rfc: "4301 5.1.2.1; 2983",
		tests: "dataplane TestOuterTrafficClassAndDF TestRFC6040_4_2_DecapsulationUnderAH TestDummyOuterHeader sad TestDSCP",
		but:   "copied, 0, or one value; a map from value to value is not built: SAs per DSCP do what it is mostly wanted for"},
	{id: "57", what: "the outer flow label comes from the inner flow", rfc: "6438 3",
		tests: "dataplane TestRFC6438_3_OuterFlowLabelIsOfTheInnerFlow internal/packet TestFlowHashDiffersInEveryBit",
		but:   "for AH and its bundles. Of ESP the kernel makes the header, and its label knows nothing of the inner flow: all flows of a tunnel take one of several equal paths"},
}

var rfcLifetimes = []rfcRow{
	{id: "58", what: "lifetimes by time and bytes at once, the first to end counts, soft before hard", rfc: "4301 4.4.2.1",
		tests: "sad TestRFC4301_4_4_2_1_EveryLimitAloneAndTheFirstOfSeveral TestCS10_HardPacketsHoldByConstruction TestCS10_HardBytesRefuseTheNextRun dataplane TestCS10_RFC4301_4_4_2_1_SoftThenHardByTime TestCS10_HardPacketsOutboundToTheLast TestCS10_HardBytesAtBothEnds TestCS10_LifetimesOfAH config TestBadFilesAreRefusedWithTheirPlace/lifetime-soft-after-hard ike TestHardLifetimeDeletes TestLiveness TestRevokedPeersAreEnded test/ikeload TestRootK3ResponderOnlyLetsItsSAsExpire",
		but:   "bytes are those of the packets inside, without padding (the RFC's SHOULD has it in), so that they can be compared with other counters. No SA ends with the date of a certificate or of a CRL: `reauth` has them looked at again, and a list that revokes a certificate ends what came up by it"},
	{id: "59", what: "make before break: the new SA receives before anybody sends on it, the old one receives for a grace time", rfc: "7296 2.8",
		tests: "dataplane TestRFC7296_2_8_ReplacementsUnderLoadLoseNothing TestReplacementsThatBreakFirstAreSeenToLose TestReplaceIsAllOrNoneAndMayBeCalledAgain TestAnOldOutboundSAStaysWhileAWorkerUsesIt TestRFC4303_2_6_SendDummy test/replace TestRootRFC7296_2_8_Replace1000TimesUnderLoadLosesNothing ike TestInstallBeforeAnswer TestTheResponderOfARekeyWaitsForTheDelete TestRFC7296_2_8_OldInboundHasItsGraceWhileTheNewOneIsRekeyed TestRFC7296_2_8_NoSwitchBesideAPairThatWorks TestSwitchByAnAnswer test/ikeload TestRootRekeysUnderLoadLoseNothing test/swan TestRootRekeysUnderLoadLoseNothing",
		but:   "the responder of a rekey does not see the first packet on the new SA: it sends on the old one until the peer deletes that, or asks or answers something that shows it has the new one"},
	{id: "60", what: "both ends rekey at once: both take the other's, and who drew the lowest nonce closes what it made", rfc: "7296 2.8.1, 2.8.2, 2.25",
		tests: "ike TestCollisions TestCollisionsWithAFault TestRFC7296_2_8_1_TheLowestNonceLoses TestRFC7296_2_8_1_BothAskForAChildSA TestTerminateMeetsOurRekey TestTheHardLifetimeOfAnIKESAThatThePeerHasReplaced test/ikesim TestSeeds test/ikeload TestRootK6BothEndsAtOnce TestRootRekeysUnderLoadLoseNothing test/swan TestRootRekeysUnderLoadLoseNothing"},
	{id: "61", what: "rekeying is jittered", rfc: "7296 2.8", tests: "sad TestRFC7296_2_8_SoftLimitsAreJittered dataplane TestRFC7296_2_8_JitterSpreadsSoftExpire"},
}

var rfcAudit = []rfcRow{
	{id: "62", what: "the auditable events, with their fields, thinned out, and never answered", rfc: "4301 4.1, 5.1, 5.2, 6.2; 4302 4; 4303 4",
		tests: "dataplane TestRFC4303_4_AuditEventsHaveTheirFields TestRFC4303_3_3_3_OverflowIsAuditedWithItsCount TestFloodIsAFewAuditEvents TestAuditReasonsAreThinnedApart TestAuditNeverBlocksAndKeepsTheCount TestOtherDropsAreNotAudited cmd/adit TestRFC4303_4_AuditLogHasItsFields TestRFC4303_4_AuditingCanBeTurnedOff . TestDocsAuditNamesEveryAuditableReason",
		but:   "the flow label of an outer IPv6 header is not told by the sockets, and so not audited; outer fragments are the kernel's (6); NULL with nothing cannot be tried, the file is refused (4)"},
}
